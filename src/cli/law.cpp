// sparsam law: the laboratory of the sparsing law. `run` trains and measures a ladder of models, `fit` fits the law.
#include "base/interrupt.h"
#include "base/progress.h"
#include "cli/common.h"
#include "cli/law_fit.h"
#include "train/ladder.h"

namespace sparsam {

namespace {

struct LawRunFlags {
  std::string spec, out;
};

Exit run_law_run(const LawRunFlags& flags, const Common& common) {
  const Json spec = parse_json(read_text(flags.spec), flags.spec);
  install_interrupt_handler();
  Progress progress("law", common.quiet);
  const auto line = [&](const std::string& text) {
    if (common.quiet) return;
    progress.finish();
    fmt::print(stderr, "{}\n", text);
  };
  LadderEvents events;
  events.on_note = [&](std::string_view note) { line(std::string(note)); };
  events.on_progress = [&](double fraction, std::string_view detail) { progress.update(fraction, detail); };
  events.on_point = [&](const LawPoint& point) {
    line(fmt::format(
        "{} after {} tokens: perplexity {:.2f}, PPL-{:g} % activation ratio {:.4f} (CETT {:.3f}), not zero {:.4f}",
        point.model, format_count(point.tokens), point.perplexity, point.percent, point.activation_ratio, point.cett,
        point.nonzero_ratio));
  };
  events.stop = [] { return interrupted(); };
  const bool done = run_ladder(spec, flags.spec, flags.out, events);
  progress.finish();
  const auto points = read_law_points(fs::path(flags.out) / "points.jsonl");
  if (common.json) {
    print_json({{"done", done}, {"points", points.size()}});
  } else if (done) {
    fmt::print("{} points in {}\n", points.size(), (fs::path(flags.out) / "points.jsonl").string());
  }
  if (done) return Exit::done;
  fmt::print(stderr, "stopped after {} points; the same command goes on\n", points.size());
  return interrupt_exit_code();
}

void add_law_run(CLI::App& law, Command& command) {
  const auto flags = std::make_shared<LawRunFlags>();
  CLI::App* verb = add_verb(law, command, "run", "train a ladder of models and measure it at checkpoints");
  verb->add_option("SPEC", flags->spec, "JSON file: texts, shapes, activations, checkpoints (docs/law.md)")->required();
  verb->add_option("--out", flags->out, "directory for models and points.jsonl; an interrupted ladder goes on")
      ->required();
  add_example(verb, "sparsam law run bench/ladder.json --out ladder");
  on_chosen(verb, command, [flags, &command] { return run_law_run(*flags, command.common); });
}

void add_law_fit(CLI::App& law, Command& command) {
  const auto flags = std::make_shared<LawFitFlags>();
  CLI::App* verb = add_verb(law, command, "fit", "fit the law's curves to measured activation ratios");
  verb->add_option("POINTS", flags->points, "points.jsonl, or the directory of law run")->required();
  verb->add_option("--unit", flags->unit, "tokens that count as D = 1")->capture_default_str();
  verb->add_option("--cett", flags->cett,
                   "own: each checkpoint's ratio by its own search; shared: one CETT for all checkpoints of a model")
      ->capture_default_str();
  verb->add_option("--last", flags->last, "checkpoints that the shared CETT is fitted to")
      ->check(in_range(1, 1 << 20))
      ->capture_default_str();
  verb->add_option("--percent", flags->percent,
                   "rise of the perplexity at the shared CETT (default: that of the points)");
  verb->add_option("--resamples", flags->resamples, "of the bootstrap, 0: no bands")
      ->check(in_range(0, 1 << 20))
      ->capture_default_str();
  verb->add_option("--plot", flags->plot, "write data, fits and bands as SVG");
  add_example(verb, "sparsam law fit ladder --unit 1e6 --plot law.svg");
  on_chosen(verb, command, [flags, &command] { return run_law_fit(*flags, command.common); });
}

}  // namespace

void add_law(CLI::App& program, Command& command) {
  CLI::App* law =
      program.add_subcommand("law", "the sparsing law: train a ladder of models, fit their activation ratios");
  law->require_subcommand(1);
  add_law_run(*law, command);
  add_law_fit(*law, command);
}

}  // namespace sparsam
