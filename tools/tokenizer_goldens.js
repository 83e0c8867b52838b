// Writes tests/data/text/tokenizer_golden.json: token ids that Hugging Face's own library (npm package "tokenizers")
// gives to texts that are hard to split, for several layouts of one small tokenizer.
//   npm install --no-save tokenizers && node tools/tokenizer_goldens.js
const fs = require('fs');
const path = require('path');
const { Tokenizer } = require('tokenizers');

const folder = path.join(__dirname, '..', 'tests', 'data', 'text');
const base = JSON.parse(fs.readFileSync(path.join(folder, 'tokenizer_small.json'), 'utf8'));

const bytes = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false };
const split = (regex, rest = {}) => ({ type: 'Split', pattern: { Regex: regex }, behavior: 'Isolated', invert: false, ...rest });
const sequence = (...pretokenizers) => ({ type: 'Sequence', pretokenizers });
const llama3 = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const gpt4o = "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const added = (id, content, rest = {}) => ({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true, ...rest });
const layouts = {
  gpt2: {},
  prefix_space: { pre_tokenizer: { ...bytes, add_prefix_space: true, use_regex: true } },
  no_regex: { pre_tokenizer: bytes },
  llama3: { pre_tokenizer: sequence(split(llama3), bytes) },
  llama3_removed_inverted: { pre_tokenizer: sequence(split(llama3, { behavior: 'Removed', invert: true }), bytes) },
  gpt4o: { pre_tokenizer: sequence(split(gpt4o), bytes) },
  starcoder: { pre_tokenizer: sequence({ type: 'Digits', individual_digits: true }, { ...bytes, use_regex: true }) },
  digit_runs: { pre_tokenizer: sequence({ type: 'Digits', individual_digits: false }, { ...bytes, use_regex: true }) },
  punctuation: { pre_tokenizer: sequence({ type: 'Punctuation', behavior: 'Contiguous' }, { ...bytes, use_regex: true }) },
  bloom: { pre_tokenizer: sequence(split(' ?[^(\\s|[.,!?…。,、।۔،])]+'), bytes) },
  literal: { pre_tokenizer: sequence({ type: 'Split', pattern: { String: ' t' }, behavior: 'Isolated', invert: false }, bytes) },
  empty_matches: { pre_tokenizer: sequence(split('e*'), bytes) },
  ignore_merges: { model: { ...base.model, ignore_merges: true, merges: base.model.merges.slice(0, 60) } },
  added: { added_tokens: [added(0, '<|endoftext|>'), added(700, '<mask>', { lstrip: true }), added(701, '<r>', { rstrip: true }),
    added(702, '<|endof', { special: false }), added(703, '   ', { special: false, normalized: true }), added(704, 'ü<', { normalized: true })] },
};

const texts = ["", " ", "a", "Hello world", "Hello  world   ", "\n\n\n  x\n \t\ty", "don't I'll we've you're he'd it's 's 'S 'LL I'M x'y '' 'sx",
  "123 4567 1 22 3.14 ½ ² ٣٤ Ⅷ", "東京は日本の首都です。", "Привет, мир! Ёлка…", "naïve café e\u0301 ü<ü", "👍🏽👨‍👩‍👧 ok 🇩🇪", "\u00a0\u3000x\u2003\u200by\u180e z\u0085w\u2028",
  "a<|endoftext|>b <|endoftext|> <|endof text|> <|endofte", "x <mask> y<mask>  <r>   z<r>\n\n<mask>", "    four    spaces     five", "tab\tsep\r\nline\rend",
  "f(x)[i]!= {'k': \"v\"};//..., --- ___", "ſ'ſ K 'ſ", "\u0000\u0001\u007f\ufeff\ufffd", "ﬁ ǅ ʰ ªº ۔ ، । ?", "the theme there eee e then t t"];
let seed = 12345;  // numbers of Park and Miller
const random = (n) => (seed = seed * 48271 % 2147483647) % n;
const alphabet = [..." \n\t  ''stredmlv0123abcXYZ.,!-\u00e9\u00fc\u00df\u4e2d\u6587\u0416\u0436\u0301\u00a0\u3000\u2028\u0660\u00bd\u2160\u200d\ud83d\ude00<|>"];
for (let i = 0; i < 60; ++i) texts.push(Array.from({ length: 1 + random(24) }, () => alphabet[random(alphabet.length)]).join(''));

(async () => {
  const out = [];
  for (const [name, patch] of Object.entries(layouts)) {
    const tokenizer = Tokenizer.fromString(JSON.stringify({ ...base, ...patch }));
    const ids = [];
    for (const text of texts) ids.push((await tokenizer.encode(text, null, { addSpecialTokens: false })).getIds());
    const { model, ...shown } = patch;
    if (model) shown.model = { ignore_merges: model.ignore_merges, merges: model.merges.length };
    out.push({ name, patch: shown, ids });
  }
  const lines = out.map((layout) => JSON.stringify(layout)).join(',\n');
  fs.writeFileSync(path.join(folder, 'tokenizer_golden.json'), `{"texts": ${JSON.stringify(texts)},\n"layouts": [\n${lines}\n]}\n`);
})();
