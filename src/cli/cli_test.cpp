// The program as its users meet it: exit codes, messages, and what is on standard output.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <numeric>

#include "formats/json.h"
#include "formats/safetensors.h"
#include "infer/test_support.h"
#include "text/corpus.h"

namespace sparsam {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

struct Outcome {
  int code = 0;
  std::string out, err;
};

class CliTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    const fs::path pattern = fs::path(testing::TempDir()) / "sparsam_cli_XXXXXX";
    std::string name = pattern.string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder = name;
    write_text(folder / "text.txt", embedded_corpus(6000, 5).text);
    write_text(folder / "empty.txt", "");
    write_model("model", 1);
    write_model("other", 2);
  }
  static void TearDownTestSuite() { fs::remove_all(folder); }

  static void write_model(const std::string& name, u64 seed, float poison = 0,
                          Architecture architecture = tiny_llama_like) {
    architecture.vocab = tiny_tokenizer().vocab_size();
    const TinyModel tiny = tiny_model(architecture, seed);
    if (poison != 0) tiny.flat->views.layers[1].attention.k.weight(3, 4) = poison;
    fs::create_directories(folder / name);
    save_model(tiny.model, folder / name);
    write_text(folder / name / "tokenizer.json", tiny_tokenizer().to_json());
  }
  static std::string path(const std::string& name) { return (folder / name).string(); }
  static std::string slurp(const fs::path& file) { return fs::file_size(file) ? read_text(file) : std::string(); }

  // Arguments are split at spaces; @NAME stands for a path in the test's folder.
  static Outcome run(const std::string& arguments) {
    std::string command = "OMP_NUM_THREADS=1 " SPARSAM_BINARY;
    for (size_t begin = 0; begin < arguments.size();) {
      const size_t end = std::min(arguments.find(' ', begin), arguments.size());
      const std::string argument = arguments.substr(begin, end - begin);
      command.append(" '").append(argument[0] == '@' ? path(argument.substr(1)) : argument).append("'");
      begin = end + 1;
    }
    const fs::path out = folder / "stdout", err = folder / "stderr";
    command.append(" >").append(out.string()).append(" 2>").append(err.string()).append(" </dev/null");
    const int status = std::system(command.c_str());
    EXPECT_TRUE(WIFEXITED(status)) << command << ": " << slurp(err);
    return {WEXITSTATUS(status), slurp(out), slurp(err)};
  }
  // A run that must succeed and print one JSON object and nothing else.
  static Json json_of(const std::string& arguments) {
    const Outcome o = run(arguments + " --json");
    EXPECT_EQ(o.code, 0) << arguments << ": " << o.err;
    const Json json = parse_json(o.out, arguments);
    EXPECT_TRUE(json.is_object());
    return json;
  }
  // A run that must fail with this code, nothing on standard output, and one line that says why.
  static std::string error_of(const std::string& arguments, int code) {
    const Outcome o = run(arguments);
    EXPECT_EQ(o.code, code) << arguments << ": " << o.err;
    EXPECT_THAT(o.out, IsEmpty()) << arguments;
    EXPECT_THAT(o.err, StartsWith("sparsam: ")) << arguments;
    return o.err;
  }

  static inline fs::path folder;
};

TEST_F(CliTest, WrongCommandLinesAreUsageErrorsWithCloseMatches) {
  EXPECT_THAT(error_of("evl @model", 2), HasSubstr("did you mean eval?"));
  EXPECT_THAT(error_of("eval @model --dta x", 2), HasSubstr("did you mean --data?"));
  EXPECT_THAT(error_of("eval @model --dta=x", 2), HasSubstr("unknown flag '--dta'"));
  EXPECT_THAT(error_of("eval @model", 2), HasSubstr("--data is required"));
  EXPECT_THAT(error_of("eval @model --data @text.txt extra", 2), HasSubstr("unexpected argument 'extra'"));
  EXPECT_THAT(error_of("eval @model --data @text.txt --protocol strides", 2), HasSubstr("did you mean stride?"));
  EXPECT_THAT(error_of("eval @model --data @text.txt --context 1", 2), HasSubstr("--context"));
  EXPECT_THAT(error_of("eval @model --data @text.txt --context ten", 2), HasSubstr("--context"));
  EXPECT_THAT(error_of("eval @model --data @text.txt --backend cpus", 2), HasSubstr("did you mean cpu?"));
  EXPECT_THAT(error_of("eval @model --data @text.txt --precision f31", 2), HasSubstr("did you mean f32?"));
  EXPECT_THAT(error_of("score @model --data @text.txt --threads 0", 2), HasSubstr("--threads"));
  EXPECT_THAT(error_of("generate @model --prompt x --top-p 2", 2), HasSubstr("--top-p"));
  EXPECT_THAT(error_of("generate @model --prompt x --cache f8", 2), HasSubstr("--cache"));
  EXPECT_THAT(error_of("bench --random mikro", 2), HasSubstr("did you mean micro"));
  EXPECT_THAT(error_of("bench", 2), HasSubstr("MODEL"));
  EXPECT_EQ(run("").code, 2);
}

TEST_F(CliTest, ConvertsThereAndBackBitForBit) {
  const auto weights_of = [](const std::string& name) { return slurp(folder / name / "model.safetensors"); };
  EXPECT_EQ(run("convert @model @there.gguf").code, 0);
  EXPECT_EQ(run("convert @there.gguf @back").code, 0);
  EXPECT_EQ(weights_of("back"), weights_of("model"));
  const std::string eval = " --data @text.txt --context 32";
  const Json before = json_of("eval @model" + eval), there = json_of("eval @there.gguf" + eval);
  EXPECT_NEAR(there["nats_per_token"].get<double>(), before["nats_per_token"].get<double>(), 1e-6);
  EXPECT_EQ(json_of("eval @back" + eval)["nats_per_token"], before["nats_per_token"]);

  EXPECT_EQ(run("convert @model @narrow --type bf16").code, 0);
  EXPECT_EQ(run("convert @narrow @narrow.gguf").code, 0);
  EXPECT_EQ(run("convert @narrow.gguf @narrow_back").code, 0);
  EXPECT_EQ(weights_of("narrow_back"), weights_of("narrow"));
  EXPECT_LT(weights_of("narrow").size(), weights_of("model").size());
}

TEST_F(CliTest, CheckpointsOfSixteenBitsComeBackTensorForTensor) {
  const fs::path source = SPARSAM_DATA "/weights/derived/stories260K";
  if (!fs::exists(source)) GTEST_SKIP() << "the shared data folder is not here";
  for (const std::string kind : {"bf16", "f16"}) {
    const fs::path original = folder / kind;
    fs::create_directories(original);
    for (const char* name : {"config.json", "tokenizer.json"}) fs::copy_file(source / name, original / name);
    fs::copy_file(source / ("model." + kind + ".safetensors"), original / "model.safetensors");
    EXPECT_EQ(run("convert @" + kind + " @" + kind + ".gguf").code, 0);
    EXPECT_EQ(run("convert @" + kind + ".gguf @" + kind + "_back").code, 0);
    const SafetensorsFile was = SafetensorsFile::open(original), is = SafetensorsFile::open(folder / (kind + "_back"));
    EXPECT_EQ(is.tensors().size(), was.tensors().size());
    for (const TensorEntry& entry : was.tensors()) {
      const TensorEntry& found = is.at(entry.name);
      EXPECT_EQ(found.dtype, entry.dtype) << entry.name;
      EXPECT_EQ(found.shape, entry.shape) << entry.name;
      EXPECT_TRUE(std::ranges::equal(found.bytes, entry.bytes)) << entry.name;
    }
  }
}

TEST_F(CliTest, ConvertStatesErrorsSizesAndPerplexity) {
  const Json json = json_of("convert @model @q8.gguf --type Q8_0 --calibrate @text.txt --data @text.txt --context 32");
  EXPECT_EQ(json["type"], "q8_0");
  EXPECT_EQ(json["bytes"].get<u64>(), fs::file_size(folder / "q8.gguf"));
  EXPECT_LT(json["weight_bytes_after"].get<double>(), json["weight_bytes_before"].get<double>());
  EXPECT_GT(json["matrices"].size(), 0u);
  for (const Json& m : json["matrices"]) EXPECT_LT(m["relative_error"].get<double>(), 0.01) << m["name"];
  const double before = json["quality"]["perplexity_before"].get<double>();
  EXPECT_NEAR(json["quality"]["perplexity_after"].get<double>(), before, 0.01 * before);
  EXPECT_THAT(run("convert @model @q8.gguf --type q8_0").out, HasSubstr("model.layers.0.self_attn.q_proj.weight"));

  EXPECT_THAT(error_of("convert @model @dir --type q8_0", 2), HasSubstr("must end in .gguf"));
  EXPECT_THAT(error_of("convert @model @x.gguf --type q8_1", 2), HasSubstr("did you mean"));
  EXPECT_THAT(error_of("convert @model @x.gguf --calibrate @text.txt", 2), HasSubstr("--type"));
  EXPECT_THAT(error_of("convert @model @model", 2), HasSubstr("the model itself"));
  EXPECT_FALSE(fs::exists(folder / "x.gguf"));
}

TEST_F(CliTest, DropWritesGguf) {
  EXPECT_EQ(run("drop @model --list attn:1 --out @thin.gguf").code, 0);
  EXPECT_EQ(run("drop @model --list attn:1 --out @thin").code, 0);
  const std::string eval = " --data @text.txt --context 32";
  EXPECT_NEAR(json_of("eval @thin.gguf" + eval)["nats_per_token"].get<double>(),
              json_of("eval @thin" + eval)["nats_per_token"].get<double>(), 1e-6);
}

TEST_F(CliTest, HelpIsOnStandardOutputWithAnExample) {
  EXPECT_EQ(run("--help").code, 0);
  for (const char* verb : {"eval", "score", "drop", "convert", "generate", "inspect", "bench", "corpus", "backends"}) {
    const Outcome o = run(std::string(verb) + " --help");
    EXPECT_EQ(o.code, 0);
    EXPECT_THAT(o.out, HasSubstr("Example:\n  sparsam " + std::string(verb))) << verb;
    EXPECT_THAT(o.err, IsEmpty());
  }
  EXPECT_THAT(run("version").out, StartsWith("sparsam "));
}

TEST_F(CliTest, MissingFilesAreNamed) {
  EXPECT_THAT(error_of("eval @absent --data @text.txt", 1), HasSubstr("absent: no such model"));
  EXPECT_THAT(error_of("eval @model --data @absent.txt", 1), HasSubstr("absent.txt"));
  EXPECT_THAT(error_of("eval @model --data @empty.txt", 1), HasSubstr("empty.txt: empty"));
  EXPECT_THAT(error_of("score @model --data @empty.txt", 1), HasSubstr("empty.txt: empty"));
  EXPECT_THAT(error_of("inspect @text.txt", 1), HasSubstr("expected a model directory"));
  fs::create_directories(folder / "hollow");
  EXPECT_THAT(error_of("inspect @hollow", 1), HasSubstr("config.json"));
}

TEST_F(CliTest, DamagedWeightsAreNamed) {
  write_model("damaged", 1);
  const fs::path file = folder / "damaged" / "model.safetensors";
  const std::string whole = read_text(file);
  for (const size_t length : {size_t{0}, size_t{7}, size_t{100}, whole.size() / 2, whole.size() - 1}) {
    write_text(file, whole.substr(0, length));
    EXPECT_THAT(error_of("eval @damaged --data @text.txt", 1), HasSubstr("model.safetensors")) << length;
  }
  std::string corrupt = whole;
  corrupt[20] ^= 0x55;
  write_text(file, corrupt);
  error_of("inspect @damaged", 1);
}

TEST_F(CliTest, WeightsThatAreNoNumbersAreNamed) {
  write_model("nan", 1, std::numeric_limits<float>::quiet_NaN());
  write_model("inf", 1, std::numeric_limits<float>::infinity());
  const std::string tensor = "model.layers.1.self_attn.k_proj.weight";
  EXPECT_THAT(error_of("eval @nan --data @text.txt", 1), HasSubstr(tensor + " holds nan at (3, 4)"));
  EXPECT_THAT(error_of("eval @model --against @inf --data @text.txt", 1), HasSubstr(tensor + " holds inf"));
  EXPECT_THAT(error_of("score @nan --data @text.txt --quiet", 1), HasSubstr(tensor));
  EXPECT_THAT(error_of("generate @nan --prompt the --quiet", 1), HasSubstr(tensor));
}

TEST_F(CliTest, VocabulariesMustAgree) {
  Architecture architecture = tiny_llama_like;
  architecture.vocab = tiny_tokenizer().vocab_size() + 3;
  fs::create_directories(folder / "padded");
  save_model(tiny_model(architecture).model, folder / "padded");
  write_text(folder / "padded" / "tokenizer.json", tiny_tokenizer().to_json());
  EXPECT_THAT(error_of("eval @model --against @padded --data @text.txt", 1), HasSubstr("vocabulary"));
  architecture.vocab = tiny_tokenizer().vocab_size() - 3;
  save_model(tiny_model(architecture).model, folder / "padded");
  EXPECT_THAT(error_of("eval @padded --data @text.txt", 1), HasSubstr("do not belong together"));
}

TEST_F(CliTest, EvalReportsTheContract) {
  const Json json = json_of("eval @model --data @text.txt");
  EXPECT_GT(json["perplexity"].get<double>(), 1);
  EXPECT_GT(json["bits_per_byte"].get<double>(), 0);
  EXPECT_EQ(json["tokens"].get<size_t>() + 1, tiny_tokenizer().encode(read_text(folder / "text.txt")).size());
  EXPECT_THAT(json["protocol"].get<std::string>(), StartsWith("stride: windows of 64"));
  EXPECT_LT(json["confidence_interval"][0].get<double>(), json["perplexity"].get<double>());
  EXPECT_GT(json["confidence_interval"][1].get<double>(), json["perplexity"].get<double>());
  const Json again = json_of("eval @model --data @text.txt --backend reference");
  EXPECT_NEAR(again["perplexity"].get<double>() / json["perplexity"].get<double>(), 1, 1e-4);
  const Json llama = json_of("eval @model --data @text.txt --data @text.txt --protocol llama.cpp --context 32");
  EXPECT_THAT(llama["protocol"].get<std::string>(), StartsWith("llama.cpp: windows of 32"));
  ASSERT_EQ(llama["files"].size(), 2u);
  EXPECT_EQ(llama["files"][0]["perplexity"], llama["files"][1]["perplexity"]);
  EXPECT_EQ(llama["tokens"].get<i64>(), 2 * llama["files"][0]["tokens"].get<i64>());
  EXPECT_THAT(run("eval @model --data @text.txt").out, HasSubstr("bits per byte"));
}

TEST_F(CliTest, EvalAgainstItselfIsZero) {
  const Json same = json_of("eval @model --data @text.txt --against @model");
  EXPECT_EQ(same["kl"].get<double>(), 0);
  EXPECT_EQ(same["top1_agreement"].get<double>(), 1);
  const Json other = json_of("eval @other --data @text.txt --against @model");
  EXPECT_GT(other["kl"].get<double>(), 0.1);
  EXPECT_LT(other["top1_agreement"].get<double>(), 0.9);
  EXPECT_NEAR(other["base_perplexity"].get<double>(), same["perplexity"].get<double>(), 1e-6);
}

TEST_F(CliTest, ScoreDropAndUseTheResult) {
  const Outcome scored = run("score @model --data @text.txt --json");
  ASSERT_EQ(scored.code, 0) << scored.err;
  const Json scores = parse_json(scored.out, "score");
  ASSERT_EQ(scores["sublayers"].size(), 9u);
  for (const Json& s : scores["sublayers"]) {
    EXPECT_THAT(s["kind"].get<std::string>(), testing::AnyOf("attention", "mlp", "block"));
    EXPECT_GE(s["score"].get<double>(), 0);
  }
  write_text(folder / "scores.json", scored.out);
  EXPECT_THAT(run("score @model --data @text.txt").out, HasSubstr("█"));

  const Json before = json_of("inspect @model");
  const Json dropped = json_of("drop @model --attention 2 --data @text.txt --out @thin");
  EXPECT_EQ(dropped["dropped"].size(), 2u);
  const Json after = json_of("inspect @thin");
  EXPECT_EQ(after["cache_bytes_per_token"].get<i64>(), before["cache_bytes_per_token"].get<i64>() / 3);
  EXPECT_LT(after["parameters"].get<i64>(), before["parameters"].get<i64>());
  EXPECT_EQ(after["layers"], 3);
  EXPECT_LT(fs::file_size(folder / "thin/model.safetensors"), fs::file_size(folder / "model/model.safetensors"));
  const Json manifest = parse_json(read_text(folder / "thin/sparsam.json"), "manifest");
  EXPECT_EQ(manifest["dropped"], dropped["dropped"]);
  const Json from_file = json_of("drop @model --attention 2 --scores @scores.json --out @thin2");
  EXPECT_EQ(from_file["dropped"], dropped["dropped"]);

  EXPECT_GT(json_of("eval @thin --data @text.txt --against @model")["kl"].get<double>(), 0);
  EXPECT_EQ(json_of("score @thin --data @text.txt")["sublayers"].size(), 7u);
  EXPECT_EQ(json_of("generate @thin --prompt the --tokens 4 --past-end")["tokens"].size(), 4u);
  EXPECT_THAT(error_of("drop @thin --attention 2 --data @text.txt --out @thinner", 2), HasSubstr("expected 0 to 1"));
  EXPECT_EQ(json_of("drop @thin --mlp 3 --attention 1 --out @bare --quiet")["after"]["layers"], 0);
  json_of("eval @bare --data @text.txt");
}

TEST_F(CliTest, DropRefusesWhatCannotBe) {
  EXPECT_THAT(error_of("drop @model --out @x", 2), HasSubstr("nothing to drop"));
  EXPECT_THAT(error_of("drop @model --attention 4 --out @x", 2), HasSubstr("expected 0 to 3"));
  EXPECT_THAT(error_of("drop @model --list attn:3 --out @x", 2), HasSubstr("out of range"));
  EXPECT_THAT(error_of("drop @model --list atn:1 --out @x", 2), HasSubstr("did you mean attn"));
  EXPECT_THAT(error_of("drop @model --list attn:1 --mlp 1 --out @x", 2), HasSubstr("--list"));
  EXPECT_THAT(error_of("drop @model --list attn:1 --out @model", 2), HasSubstr("the model itself"));
  EXPECT_THAT(error_of("drop @model --list attn:1 --out @text.txt", 2), HasSubstr("no model directory"));
  EXPECT_FALSE(fs::exists(folder / "x"));
  fs::create_directories(folder / "precious");
  write_text(folder / "precious/thesis.txt", "years of work");
  EXPECT_THAT(error_of("drop @model --list attn:1 --out @precious", 2), HasSubstr("no model directory"));
  EXPECT_TRUE(fs::exists(folder / "precious/thesis.txt"));
  write_text(folder / "bad.json", R"({"sublayers": [{"layer": 0, "kind": "atention", "score": 1}]})");
  EXPECT_THAT(error_of("drop @model --mlp 1 --scores @bad.json --out @x", 1), HasSubstr("did you mean attention"));
}

TEST_F(CliTest, GenerateIsReproducibleAndStreamsTheSameText) {
  const std::string arguments = "generate @model --prompt the --tokens 20 --seed 3 --past-end";
  const Json first = json_of(arguments), second = json_of(arguments);
  EXPECT_EQ(first["text"], second["text"]);
  EXPECT_EQ(first["tokens"].size(), 20u);
  EXPECT_GT(first["tokens_per_second"].get<double>(), 0);
  EXPECT_EQ(run(arguments).out, "the" + first["text"].get<std::string>() + "\n");
  EXPECT_NE(json_of("generate @model --prompt the --tokens 20 --seed 4 --past-end")["text"], first["text"]);
  const Json greedy = json_of("generate @model --prompt the --tokens 9 --temperature 0 --past-end");
  EXPECT_EQ(greedy["tokens"], json_of("generate @model --prompt the --tokens 9 --top-k 1 --past-end")["tokens"]);
  EXPECT_THAT(error_of("generate @model --prompt thethethethe --tokens 4 --context 2", 1),
              HasSubstr("more than the 2 positions"));
}

TEST_F(CliTest, BenchReportsTheContract) {
  const Json json = json_of("bench @model -p 16 -n 4 -d 8 -r 1 --prompt-tokens 8");
  ASSERT_EQ(json["prefill"].size(), 2u);
  EXPECT_EQ(json["prefill"][0]["tokens"], 16);
  EXPECT_GT(json["prefill"][0]["tokens_per_second"].get<double>(), 0);
  EXPECT_GT(json["prefill"][0]["fraction_of_peak"].get<double>(), 0);
  EXPECT_EQ(json["decode"][0]["depth"], 8);
  EXPECT_GT(json["decode"][0]["fraction_of_bandwidth"].get<double>(), 0);
  EXPECT_GT(json["peak_gflops"].get<double>(), 0);
  EXPECT_GT(json["bandwidth_gbytes"].get<double>(), 0);
}

TEST_F(CliTest, CorpusIsReproducibleAndKnowsItsEntropy) {
  const Json file = json_of("corpus --tokens 300 --seed 4 --out @stories.txt");
  const Outcome text = run("corpus --tokens 300 --seed 4");
  EXPECT_EQ(text.out, read_text(folder / "stories.txt"));
  EXPECT_THAT(text.err, HasSubstr("bits per byte"));
  EXPECT_EQ(file["bytes"].get<size_t>(), text.out.size());
  EXPECT_GE(file["words"].get<i64>(), 300);
  EXPECT_NEAR(file["bits_per_byte"].get<double>(), embedded_corpus(i64(text.out.size()), 4).bits_per_byte(), 1e-9);
  EXPECT_EQ(json_of("corpus --tokens 300 --seed 4")["text"].get<std::string>(), text.out);
}

TEST_F(CliTest, InspectWithoutATokenizerAndBackends) {
  write_model("mute", 1);
  fs::remove(folder / "mute/tokenizer.json");
  const Json json = json_of("inspect @mute");
  EXPECT_EQ(json["architecture"], "LlamaForCausalLM");
  EXPECT_TRUE(json["tokenizer"].is_null());
  i64 sum = json["embedding_parameters"].get<i64>() + json["dim"].get<i64>();  // tables and the final norm
  for (const Json& layer : json["per_layer"]) sum += layer["parameters"].get<i64>();
  EXPECT_EQ(sum, json["parameters"].get<i64>());
  EXPECT_THAT(run("inspect @mute").out, HasSubstr("layers 0-2"));
  EXPECT_THAT(json_of("backends")["accelerated"], Not(IsEmpty()));
}

TEST_F(CliTest, InspectReadsEveryKindOfFile) {
  const std::string golden = SPARSAM_TEST_DATA "/golden/";
  const Json model = json_of("inspect @model");
  i64 parameters = 0, bytes = 0;
  for (const auto& [kind, count] : model["parameters_by_kind"].get_ref<const Json::object_t&>())
    parameters += count.get<i64>();
  for (const auto& [dtype, count] : model["bytes_by_dtype"].get_ref<const Json::object_t&>()) bytes += count.get<i64>();
  EXPECT_EQ(parameters, model["parameters"].get<i64>());
  EXPECT_EQ(bytes, model["weight_bytes"].get<i64>());
  EXPECT_EQ(model["tokenizer"]["kind"], "byte-level BPE");
  EXPECT_TRUE(model["tokenizer"]["chat_template"].is_null());
  EXPECT_EQ(json_of("inspect @model/config.json")["parameters"], model["parameters"]);
  EXPECT_EQ(json_of("inspect @model/tokenizer.json")["tokenizer"]["vocab"], model["tokenizer"]["vocab"]);

  const Json tensors = json_of("inspect @model/model.safetensors");
  EXPECT_EQ(tensors["format"], "safetensors");
  EXPECT_EQ(tensors["parameters"], model["parameters"]);
  EXPECT_EQ(json_of("inspect @model --tensors")["tensor_list"], tensors["tensor_list"]);
  const Json torch = json_of("inspect " + golden + "torch/linear.pt");
  EXPECT_EQ(torch["format"], "torch");
  EXPECT_EQ(torch["tensor_list"][0], (Json{{"name", "weight"}, {"dtype", "f32"}, {"shape", {2, 3}}, {"bytes", 24}}));
  constexpr char ctranslate2[] = "\1\0\0\0\1\0\0\0\2\0w\0\0\4\1\0\0\0\0\0\x80\x3f";  // version 1, one f32 "w"
  write_text(folder / "model.bin", {ctranslate2, sizeof ctranslate2 - 1});
  EXPECT_EQ(json_of("inspect @model.bin")["format"], "ctranslate2");
  EXPECT_EQ(json_of("inspect @model.bin --tensors")["tensor_list"][0]["name"], "w");
  EXPECT_EQ(json_of("inspect " + golden + "chat/qwen3.jinja")["chat_template"], "supported");
  EXPECT_THAT(run("inspect @model/model.safetensors").out, HasSubstr("model.embed_tokens.weight"));

  write_text(folder / "alien.jinja", "{{ 1 }}\n{% extends 'x' %}");
  EXPECT_THAT(error_of("inspect @alien.jinja", 1), HasSubstr("alien.jinja: line 2: unknown tag 'extends'"));
}

TEST_F(CliTest, ChatPutsAMessageAsTheModelsTemplateDoes) {
  write_model("talker", 1);
  write_text(folder / "talker/chat_template.jinja",
             "{% for m in messages %}{{ m.role }} says {{ m.content }}{{ eos_token }}\n{% endfor %}assistant says ");
  const std::string flags = " --chat hello --system be_brief --tokens 3 --quiet --seed 1";
  const Json answer = json_of("generate @talker" + flags);
  EXPECT_EQ(answer["prompt"], "system says be_brief<|endoftext|>\nuser says hello<|endoftext|>\nassistant says ");
  EXPECT_EQ(run("generate @talker" + flags).out, answer["text"].get<std::string>() + "\n") << "the answer alone";
  EXPECT_EQ(json_of("inspect @talker")["tokenizer"]["chat_template"], "supported");
  EXPECT_THAT(error_of("generate @model --chat hello", 1), HasSubstr("chat template: there is none"));
  EXPECT_THAT(error_of("generate @talker --chat hello --prompt x", 2), HasSubstr("--prompt"));
  EXPECT_THAT(error_of("generate @talker --system x", 2), HasSubstr("--chat"));
}

TEST_F(CliTest, ThresholdsOfInputsAreFoundStoredAndUsed) {
  write_text(folder / "held-out.txt", embedded_corpus(6000, 6).text);
  const std::string common =
      "sparsity @model --calibrate @text.txt --data @held-out.txt --inputs --held-out-tokens 512 ";
  for (const std::string allocation : {"greedy", "uniform"}) {
    const Json report = json_of(common + "--target 30,50 --greedy-tokens 32 --store 50 --out @" + allocation +
                                " --allocation " + allocation);
    ASSERT_EQ(report["inputs"].size(), 2u);
    EXPECT_NEAR(report["inputs"][0]["left_out"].get<double>(), 0.3, 0.05) << allocation;
    EXPECT_NEAR(report["inputs"][1]["left_out"].get<double>(), 0.5, 0.05) << allocation;
    EXPECT_GT(report["inputs"][1]["speedup_bound"].get<double>(), report["inputs"][0]["speedup_bound"].get<double>());
    const double dense = json_of("eval @model --data @held-out.txt")["perplexity"].get<double>();
    EXPECT_NE(json_of("eval @" + allocation + " --data @held-out.txt")["perplexity"].get<double>(), dense);
    EXPECT_FALSE(Json::parse(read_text(folder / allocation / "config.json"))["sparsam"]["crossovers"].empty());
    const std::string generate = "generate @" + allocation + " --prompt the --tokens 40 --seed 3";
    const auto first = run(generate), again = run(generate);  // another process: the same bits
    EXPECT_EQ(first.code, 0) << first.err;
    EXPECT_EQ(first.out, again.out);
  }
  const Json budget = json_of(common + "--ppl 5 --allocation uniform");
  EXPECT_LE(budget["inputs"][0]["perplexity"].get<double>(), 1.05 * budget["dense_perplexity"].get<double>());
  EXPECT_THAT(run("convert @greedy @greedy.gguf").err, HasSubstr("thresholds of inputs"));
  EXPECT_EQ(run(common + "--allocation fair").code, 2);
  EXPECT_EQ(run(common + "--target 95").code, 2);
  EXPECT_EQ(run(common + "--target 30,50 --store 40 --out @never").code, 2);
  EXPECT_THAT(run("sparsity @model --calibrate @text.txt --data @held-out.txt --target 30").err, HasSubstr("--inputs"));
}

// Thresholds leave the asked fraction of the inputs, whatever the speed.
TEST_F(CliTest, BenchPlantsInputs) {
  const Json report = json_of("bench --random nano --type q8_0 --sparse 0.3,0.6 --inputs -n 16 -r 1");
  ASSERT_EQ(report["sparse"].size(), 2u);
  for (const Json& row : report["sparse"]) {
    EXPECT_NEAR(row["active"].get<double>(), row["planted"].get<double>(), 0.08);
    EXPECT_GT(row["bound"].get<double>(), 1);
    EXPECT_FALSE(row["crossovers"].empty());
  }
  EXPECT_THAT(error_of("bench --random nano --inputs", 2), HasSubstr("--sparse"));
  EXPECT_THAT(error_of("bench --random lse-mini --sparse 0.5 --inputs", 2), HasSubstr("log-sum-exp"));
}

TEST_F(CliTest, AFullDiskIsAnError) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "this system has no /dev/full";
  const int status = std::system(SPARSAM_BINARY " corpus --tokens 100 >/dev/full 2>/dev/null");
  EXPECT_EQ(WEXITSTATUS(status), 1);
}

TEST_F(CliTest, GrowsParameterTokens) {
  write_model("tokens", 1, 0, preset("tokenformer-nano"));
  const auto perplexity = [](const std::string& model) {
    return json_of("eval @" + model + " --data @text.txt --context 64")["perplexity"].get<double>();
  };
  const double before = perplexity("tokens");
  const Json grown = json_of("grow @tokens --params 2x --out @grown");
  EXPECT_EQ(grown["same_function"], true);
  EXPECT_NEAR(grown["after"]["parameters"].get<double>() / grown["before"]["parameters"].get<double>(), 2, 0.05);
  EXPECT_NEAR(perplexity("grown") / before, 1, 1e-5);
  EXPECT_EQ(parse_json(slurp(folder / "grown" / "sparsam.json"), "manifest")["lever"], "grow");
  json_of("grow @grown --to-tokens attention:400,mlp:1200 --new zero-values --out @grown_again");
  EXPECT_NEAR(perplexity("grown_again") / before, 1, 1e-5);
  EXPECT_EQ(json_of("grow @tokens --to-tokens v:100 --published --out @published")["tokens"]["v"]["to"], 100);
  EXPECT_GT(std::abs(perplexity("published") / before - 1), 1e-4);
  EXPECT_THAT(run("inspect @grown").out, HasSubstr("parameter tokens"));
  EXPECT_EQ(run("generate @grown --prompt the --tokens 3 --temperature 0").code, 0);
  EXPECT_THAT(run("grow @tokens --params 2x --out @grown").out, HasSubstr("the function is the same"));

  EXPECT_THAT(error_of("grow @tokens --out @x", 2), HasSubstr("how far?"));
  EXPECT_THAT(error_of("grow @tokens --params 2x --to-tokens v:90 --out @x", 2), HasSubstr("give one of them"));
  EXPECT_THAT(error_of("grow @tokens --params two --out @x", 2), HasSubstr("'two' is not understood"));
  EXPECT_THAT(error_of("grow @tokens --params 2x --new zero-key --out @x", 2), HasSubstr("did you mean zero-keys?"));
  EXPECT_THAT(error_of("grow @tokens --params 2x --published --new zero-keys --out @x", 2), HasSubstr("without --new"));
  EXPECT_THAT(error_of("grow @tokens --params 2x --freeze-old --out @x", 2), HasSubstr("--freeze-old"));
  EXPECT_THAT(error_of("grow @model --params 2x --out @x", 2), HasSubstr("no parameter tokens"));
  EXPECT_THAT(error_of("grow @tokens --params 2x --out @tokens", 2), HasSubstr("is the model itself"));
  EXPECT_THAT(error_of("convert @tokens @x.gguf", 1), HasSubstr("does not have parameter tokens"));
}

TEST_F(CliTest, GrowsWidthDepthAndTheOptimizer) {
  const auto perplexity = [](const std::string& model) {
    return json_of("eval @" + model + " --data @text.txt --context 64")["perplexity"].get<double>();
  };
  const double before = perplexity("model");
  const Json grown = json_of("grow @model --dim 2x --hidden 3x --layers 5 --out @wide.gguf");
  EXPECT_EQ(grown["sizes"].dump(),
            R"({"dim":{"from":32,"to":64},"hidden":{"from":48,"to":144},"layers":{"from":3,"to":5}})");
  EXPECT_EQ(grown["same_function"], true);
  EXPECT_NEAR(perplexity("wide.gguf") / before, 1, 1e-5);
  json_of("grow @model --hidden 60 --neurons random --out @wide");
  EXPECT_NEAR(perplexity("wide") / before, 1, 1e-5);
  EXPECT_EQ(json_of("grow @model --layers 6 --stack --out @stack")["same_function"], false);
  EXPECT_GT(std::abs(perplexity("stack") / before - 1), 1e-3);

  const std::string data = " --data @text.txt --steps 3 --batch 2 --sequence 16 --valid-fraction 0";
  json_of("train --preset tokenformer-nano --layers 1 --vocab 300 --out @run" + data);
  const Json kept = json_of("grow @run --params 2x --optimizer keep --out @bigger");
  EXPECT_EQ(kept["optimizer"]["updates"], 3);
  EXPECT_EQ(json_of("train --from @bigger --optimizer keep --freeze old --out @on" + data)["step"], 3);
  EXPECT_EQ(json_of("grow @on --layers 2 --optimizer keep --out @deep")["optimizer"]["updates"], 6);

  EXPECT_THAT(error_of("grow @model --dim 33 --out @x", 2), HasSubstr("33 is no multiple of the width 32"));
  EXPECT_THAT(error_of("grow @model --dim 1.5x --out @x", 2), HasSubstr("48 is no multiple of the width 32"));
  EXPECT_THAT(error_of("grow @model --hidden few --out @x", 2), HasSubstr("'few' is not understood"));
  EXPECT_THAT(error_of("grow @model --hidden 2x --neurons copy --out @x", 2), HasSubstr("Known: copies, random"));
  EXPECT_THAT(error_of("grow @model --layers 2 --out @x", 2), HasSubstr("the model has 3 layers"));
  EXPECT_THAT(error_of("grow @model --dim 2x --stack --out @x", 2), HasSubstr("give --layers N"));
  EXPECT_THAT(error_of("grow @model --dim 2x --noise -1 --out @x", 2), HasSubstr("--noise is -1"));
  EXPECT_THAT(error_of("grow @model --dim 2x --optimizer keep --out @x", 1), HasSubstr("no state of the optimizer"));
  EXPECT_THAT(error_of("train --quiet --from @model --freeze old --out @x" + data, 2), HasSubstr("--freeze old"));
}

TEST_F(CliTest, ShrinksAndReadsParameterTokensAndNeurons) {
  Architecture architecture = preset("tokenformer-nano");
  architecture.layers = 2, architecture.dim = 32, architecture.heads = 2;
  architecture.attention_tokens = 40, architecture.mlp_tokens = 96;
  write_model("tokens", 1, 0, architecture);
  write_text(folder / "held-out.txt", embedded_corpus(3000, 77).text);
  const std::string texts = " --calibrate @text.txt --data @held-out.txt --context 64 --calibration-tokens 512 ";
  const auto perplexity = [](const std::string& model) {
    return json_of("eval @" + model + " --data @held-out.txt --context 64")["perplexity"].get<double>();
  };
  // Growth there and shrinking back.
  json_of("grow @tokens --to-tokens attention:80,mlp:200 --out @grown");
  const Json back = json_of("shrink @grown" + texts + "--tokens attention:40,mlp:96 --decode 4 --out @back");
  EXPECT_EQ(slurp(folder / "back" / "model.safetensors"), slurp(folder / "tokens" / "model.safetensors"));
  EXPECT_NEAR(back["frontier"][1]["rise"].get<double>(), 0, 1e-6);
  EXPECT_EQ(parse_json(slurp(folder / "back" / "sparsam.json"), "manifest")["lever"], "shrink");
  // A frontier, of which the second point is written.
  const Json smaller = json_of("shrink @tokens" + texts + "--keep 75%,50 --store 50 --decode 0 --out @smaller");
  ASSERT_EQ(smaller["frontier"].size(), 3u);
  EXPECT_NEAR(smaller["frontier"][2]["perplexity"].get<double>(), perplexity("smaller"), 1e-3);
  EXPECT_EQ(smaller["sites"][4]["to"], 48);
  EXPECT_LT(smaller["sites"][4]["tau_to"].get<double>(), smaller["sites"][4]["tau_from"].get<double>());
  EXPECT_THAT(run("shrink @model" + texts + "--keep 50% --allocation global --decode 2").out, HasSubstr("speed-up"));
  EXPECT_EQ(run("shrink @tokens" + texts + "--ppl 1000 --decode 0 --out @least").code, 0);
  // A bound that nothing reaches: the smallest possible step down from few neurons.
  const Outcome never = run("shrink @model" + texts + "--ppl 0 --decode 0 --out @never");
  EXPECT_EQ(never.code == 0, fs::exists(folder / "never"));
  EXPECT_EQ(never.code == 3, never.out.find("not reached") != std::string::npos);
  // Sparsity of tokens, stored and applied.
  const Json sparse = json_of(
      "sparsity @tokens --calibrate @text.txt --data @held-out.txt --context 64 --tokens 512 --ppl 5 --compare --out "
      "@sparse");
  EXPECT_EQ(sparse["layers"].size(), 10u);
  EXPECT_EQ(sparse["layers"][3]["place"], "o");
  EXPECT_NEAR(sparse["ppl"][0]["perplexity"].get<double>(), perplexity("sparse"), 1e-3);
  EXPECT_EQ(run("bench @sparse --data @held-out.txt -n 4 -r 1").code, 0);
  EXPECT_EQ(run("generate @sparse --prompt the --tokens 3 --temperature 0").code, 0);
  EXPECT_THAT(error_of("train --from @sparse --data @text.txt --steps 3 --out @y", 2), HasSubstr("by thresholds"));
  json_of(
      "sparsity @tokens --calibrate @text.txt --data @held-out.txt --context 64 --tokens 512 --inputs --target 20 "
      "--allocation uniform --out @keys");
  EXPECT_EQ(run("bench @keys --data @held-out.txt -n 4 -r 1").code, 0);
  // Keys of blocks that are not read.
  const std::string judged = " --calibrate @text.txt --data @held-out.txt --context 64 ";
  const Json blocks = json_of("sparsity @tokens" + judged + "--key-blocks 8 --read 20,50 --store 50 --out @blocks");
  EXPECT_NEAR(blocks["blocks"][1]["perplexity"].get<double>() / perplexity("blocks"), 1, 1e-6);
  EXPECT_LT(blocks["blocks"][0]["token_bytes"].get<double>(), blocks["blocks"][1]["token_bytes"].get<double>());
  EXPECT_NEAR(blocks["dense_perplexity"].get<double>() / perplexity("tokens"), 1, 1e-6);
  EXPECT_EQ(run("bench @blocks --data @held-out.txt -n 4 -r 1").code, 0);
  EXPECT_EQ(run("generate @blocks --prompt the --tokens 3 --temperature 0").code, 0);
  EXPECT_THAT(run("sparsity @tokens" + judged + "--key-blocks 8 --ppl 5").out, HasSubstr("blocks of 8 tokens"));
  EXPECT_THAT(error_of("shrink @blocks --quiet" + texts + "--keep 50%", 1), HasSubstr("read in blocks"));
  EXPECT_THAT(error_of("grow @blocks --params 2x --out @y", 1), HasSubstr("read in blocks"));
  EXPECT_THAT(error_of("sparsity @model" + judged + "--key-blocks 8", 2), HasSubstr("no projection"));
  EXPECT_THAT(error_of("sparsity @tokens" + judged + "--read 8", 2), HasSubstr("give --key-blocks"));
  // Reading a model.
  const Json read = json_of("inspect @grown --tokens @held-out.txt --most 50 --top 3 --follow 0.v.7");
  EXPECT_EQ(read["text"].size(), 50u);
  EXPECT_EQ(read["sites"][2]["positions"][49].size(), 3u);
  EXPECT_EQ(read["sites"][2]["grown"]["new_strength"], 0.0);
  EXPECT_EQ(read["followed"][0]["contexts"].size(), 10u);
  EXPECT_THAT(run("inspect @model --text cat --at 0.mlp").out, HasSubstr("strongest at each position in 0.mlp"));

  EXPECT_THAT(error_of("shrink @tokens" + texts, 2), HasSubstr("how far?"));
  EXPECT_THAT(error_of("shrink @tokens" + texts + "--keep 50% --ppl 1", 2), HasSubstr("how far?"));
  EXPECT_THAT(error_of("shrink @tokens" + texts + "--keep half", 2), HasSubstr("'half' is not understood"));
  EXPECT_THAT(error_of("shrink @tokens" + texts + "--keep 0%", 2), HasSubstr("above 0 %"));
  EXPECT_THAT(error_of("shrink @tokens" + texts + "--tokens mlp:97", 2), HasSubstr("fewer than the 97"));
  EXPECT_THAT(error_of("shrink @model" + texts + "--tokens q:7", 2), HasSubstr("no parameter tokens in q"));
  EXPECT_THAT(error_of("shrink @tokens" + texts + "--keep 50% --allocation globl", 2),
              HasSubstr("did you mean global?"));
  EXPECT_THAT(error_of("shrink @tokens" + texts + "--keep 50% --store 40% --out @unmade", 2),
              HasSubstr("not one of 50%"));
  EXPECT_THAT(error_of("shrink @tokens --calibrate @text.txt --data @text.txt --keep 50%", 2), HasSubstr("stands in"));
  EXPECT_THAT(error_of("shrink @tokens" + texts + "--keep 50% --out @tokens", 2), HasSubstr("is the model itself"));
  EXPECT_THAT(error_of("inspect @tokens --text cat --follow 0.w.7", 2), HasSubstr("no neurons at '0.w'"));
  EXPECT_THAT(error_of("inspect @tokens --text cat --follow 0.v.40", 2), HasSubstr("0.v has 0 to 39"));
  EXPECT_THAT(error_of("inspect @tokens --follow 0.v.4", 2), HasSubstr("give --tokens FILE"));
}

TEST_F(CliTest, LinearizesAndHeals) {
  const std::string fit = " --data @text.txt --window 4 --sequence 32 --fit-tokens 3000";
  const Json done = json_of("linearize @model --layers 50% --decay --out @linear" + fit);
  EXPECT_EQ(done["lever"], "linearize");
  ASSERT_EQ(done["replaced"].size(), 2u);  // of three, rounded
  for (const Json& layer : done["replaced"]) {
    EXPECT_TRUE(layer.contains("score"));
    EXPECT_GT(layer["error_before"].get<double>(), 0);
  }
  EXPECT_LT(done["after"]["cache_bytes_per_token"], done["before"]["cache_bytes_per_token"]);
  Json stored = parse_json(read_text(path("linear") + "/sparsam.json"), "sparsam.json");
  EXPECT_EQ(stored["replaced"], done["replaced"]);
  EXPECT_EQ(run("generate @linear --prompt cat --tokens 3").code, 0);
  const Json healed = json_of(
      "train --from @linear --teacher @model --data @text.txt --steps 5 --batch 2 --sequence 32 --distill-weight 0.9 "
      "--out @healed");
  EXPECT_EQ(healed["step"], 5);
  EXPECT_THAT(run("linearize @model --layers all --out @twice --quiet" + fit).out, HasSubstr("--teacher"));
  EXPECT_THAT(error_of("linearize @linear --layers all --features 99999999 --out @x" + fit, 2),
              HasSubstr("--features"));
  EXPECT_THAT(error_of("linearize @twice --layers all --out @x" + fit, 2), HasSubstr("no softmax attention"));
  EXPECT_THAT(error_of("linearize @twice --layers 1 --out @x" + fit, 1), HasSubstr("log-sum-exp attention already"));
  const Outcome missing = run("train --from @linear --teacher @missing --data @text.txt --steps 1 --out @y");
  EXPECT_EQ(missing.code, 1);
  EXPECT_THAT(missing.err, HasSubstr("missing: no such model"));
}

TEST_F(CliTest, ProbesRecall) {
  const std::string tiny = "recall --layers 1 --dim 16 --heads 1 --hidden 16 --pairs 8 --sequences 4 --batch 2 ";
  const Json found = json_of(tiny + "--steps 3 --mixer lse");
  EXPECT_EQ(found["sequence"], 32);
  ASSERT_EQ(found["recall"].size(), 2u);
  EXPECT_EQ(found["recall"][1]["pairs"], 8);
  EXPECT_EQ(found["recall"][1]["asked"], 32);
  EXPECT_EQ(json_of(tiny + "--steps 3 --mixer lse")["recall"], found["recall"]);
  EXPECT_EQ(json_of(tiny + "--steps 4 --curriculum")["tokens"], 2 * (2 * 16) + 2 * (2 * 32));
  EXPECT_THAT(error_of(tiny + "--steps 3 --sequence 31", 2), HasSubstr("--sequence is 31, expected at least 32"));
  EXPECT_THAT(error_of("recall --steps 1 --pairs 128", 2), HasSubstr("--pairs is 128, expected 4 to 127"));
  EXPECT_THAT(error_of(tiny, 2), HasSubstr("--steps"));
}

}  // namespace
}  // namespace sparsam
