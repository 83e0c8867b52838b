#!/usr/bin/python3
"""Encoders of softmax and of log-sum-exp attention on SST-2 sentiment, with and without masked pre-training.

    bench/encoders.py SPARSAM DATA OUT

DATA holds eval/sst2_{train,dev,test}.tsv (TEXT<TAB>LABEL) and text/english/. Models of one shape, the same tokenizer,
learning rates, steps and batches; two seeds of fine-tuning. Pre-training reads the training sentences without labels
and English prose; classifiers read the training sentences; the development sentences choose nothing (they are only
reported); the test sentences are read once, by `sparsam eval`. A naive Bayes classifier of words stands beside. What is
done already is not done again: remove a .json of OUT to repeat it. Prints a table; OUT/encoders.json holds all.
"""
import collections
import math
import os
import resource
import statistics
import sys

from experiment import Experiment, write

SHAPE = ["--context", "64", "--layers", "2", "--dim", "96", "--heads", "3", "--positions", "learned"]
MIXERS = {"softmax": [], "lse": ["--mixer", "lse"]}
PRETRAIN = ["--task", "masked", "--steps", "600", "--batch", "64", "--lr", "3e-3"]
CLASSIFY = ["--task", "classify", "--epochs", "3", "--batch", "32", "--weight-decay", "0.1"]
SCRATCH_LR, FINE_LR = "1e-3", "1e-3"
SEEDS = ["1", "2"]
PROSE = ["tinystories_sample.txt", "en-twain1.txt", "en-twain2.txt", "frankenstein.txt", "input.txt"]
E = Experiment(*sys.argv[1:4], threads=1)


def read(part):
    with open(os.path.join(E.texts, "eval", f"sst2_{part}.tsv"), encoding="utf-8") as file:
        return [line.rstrip("\n").rsplit("\t", 1) for line in file if "\t" in line]


def train(name, *arguments):
    """What `train` reports, kept in OUT."""
    return E.run(name, "train", *arguments, "--out", E.path(name), "--overwrite", "--save-every", "100000")


def naive_bayes(train_texts, test_texts):
    counts, labels = collections.defaultdict(collections.Counter), collections.Counter()
    for text, label in train_texts:
        counts[label].update(text.split())
        labels[label] += 1
    words = set().union(*counts.values())
    total = {label: sum(c.values()) + len(words) for label, c in counts.items()}

    def score(text, label):
        return math.log(labels[label]) + sum(math.log((counts[label][w] + 1) / total[label]) for w in text.split() if w in words)

    return sum(max(labels, key=lambda l: score(text, l)) == label for text, label in test_texts) / len(test_texts)


def main():
    parts = {part: read(part) for part in ("train", "dev", "test")}
    for part, texts in parts.items():
        with open(E.path(part + ".tsv"), "w", encoding="utf-8") as file:
            file.writelines(f"{'positive' if label == '1' else 'negative'}\t{text}\n" for text, label in texts)
    with open(E.path("sentences.txt"), "w", encoding="utf-8") as file:
        file.writelines(text + "\n" for text, _ in parts["train"])
    prose = [os.path.join(E.texts, "text", "english", name) for name in PROSE]
    unlabelled = [part for file in [E.path("sentences.txt"), *prose] for part in ("--data", file)]
    labelled = ["--data", E.path("train.tsv"), "--valid", E.path("dev.tsv")]
    tokenizer = E.path("softmax-masked")
    rows = {}
    for mixer, flags in MIXERS.items():
        own = ["--vocab", "2048"] if mixer == "softmax" else ["--tokenizer", tokenizer]
        masked = train(f"{mixer}-masked", "--preset", "nano", *SHAPE, *flags, *own, *PRETRAIN, *unlabelled)
        for start in ("scratch", "pre-trained"):
            rows[mixer, start] = {"mixer": mixer, "start": start, "parameters": 0, "accuracy": [], "dev_accuracy": [], "macro_f1": [],
                                  "cross_entropy": [], "masked_perplexity": masked["validation"]["perplexity"]}
    for seed in SEEDS:
        for (mixer, start), row in rows.items():
            name = f"{mixer}-{start}-{seed}"
            first = (["--preset", "nano", *SHAPE, *MIXERS[mixer], "--tokenizer", tokenizer, "--lr", SCRATCH_LR] if start == "scratch"
                     else ["--from", E.path(f"{mixer}-masked"), "--lr", FINE_LR])
            trained = train(name, *first, *CLASSIFY, *labelled, "--seed", seed)
            judged = E.run(name + "-test", "eval", E.path(name), "--data", E.path("test.tsv"))
            row["parameters"] = trained["parameters"]
            row["dev_accuracy"].append(trained["validation"]["accuracy"])
            for measure in ("accuracy", "macro_f1", "cross_entropy"):
                row[measure].append(judged[measure])
    rows = list(rows.values())
    cpu = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = {"rows": rows, "naive_bayes": naive_bayes(parts["train"], parts["test"]),
              "cpu_seconds_of_this_call": cpu.ru_utime + cpu.ru_stime}
    write(E.path("encoders.json"), result)
    print("| mixer | begins | parameters | test accuracy | macro F1 | cross-entropy | masked perplexity |")
    print("|---|---|---|---|---|---|---|")
    for r in rows:
        error = statistics.stdev(r["accuracy"]) / math.sqrt(len(SEEDS))
        print(f"| {r['mixer']} | {r['start']} | {r['parameters']} | {100 * statistics.mean(r['accuracy']):.2f} ± {100 * error:.2f} % | "
              f"{statistics.mean(r['macro_f1']):.4f} | {statistics.mean(r['cross_entropy']):.3f} | {r['masked_perplexity']:.1f} |")
    print(f"\nnaive Bayes of words: {100 * result['naive_bayes']:.2f} %; processor time of this call "
          f"{cpu.ru_utime + cpu.ru_stime:.0f} s", flush=True)


if __name__ == "__main__":
    main()
