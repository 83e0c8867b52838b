"""What the experiments share: the program, a folder of text, a folder of models, and results that are measured once."""
import json
import os
import subprocess
import sys


def kept(file, make):
    """The JSON in `file`; if there is none, what `make` returns, written whole or not at all."""
    if not os.path.exists(file):
        write(file, make())
    with open(file) as lines:
        return json.load(lines)


def write(file, result):
    with open(file + ".partial", "w") as out:
        json.dump(result, out, indent=1)
        out.write("\n")
    os.replace(file + ".partial", file)


def interrupted(run):
    """Whether the folder holds a training run that can go on."""
    return os.path.isdir(run) and any(f.startswith("checkpoint-") for f in os.listdir(run))


class Experiment:
    def __init__(self, program, texts=None, out=None, threads=None):
        self.program, self.texts, self.out, self.threads = program, texts, out, threads
        if out:
            os.makedirs(out, exist_ok=True)

    def sparsam(self, *arguments):
        """The JSON that a verb prints."""
        print(" ".join(["sparsam", *arguments]), file=sys.stderr, flush=True)
        command = [self.program, *arguments, "--json", "--quiet"]
        command += ["--threads", str(self.threads)] if self.threads else []
        return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)

    def run(self, name, *arguments):
        """The same, kept in OUT/NAME.json."""
        return kept(self.path(name + ".json"), lambda: self.sparsam(*arguments))

    def train(self, out, *how):
        """What `train` reports; an interrupted run goes on."""
        return self.sparsam("train", "--out", out, *(["--resume"] if interrupted(out) else how))

    def text(self, part):
        """A part of Penn Treebank: train, valid or test."""
        return os.path.join(self.texts, f"ptb.{part}.txt")

    def beginning(self, part, size):
        """The first lines of a part, at most `size` bytes."""
        file = self.path(part + ".txt")
        if not os.path.exists(file):
            with open(self.text(part), "rb") as whole, open(file, "wb") as out:
                out.write(whole.read(size).rsplit(b"\n", 1)[0] + b"\n")
        return file

    def path(self, *names):
        return os.path.join(self.out, *names)


class Results:
    """What was measured, in one file of JSON; what is there is not measured again."""

    def __init__(self, file):
        self.file = file

    def read(self):
        return kept(self.file, dict)

    def once(self, measure, *keys):
        """What stands under the keys; if nothing does, what `measure` returns, from now on."""
        known = self.read()
        for key in keys[:-1]:
            known = known.get(key, {})
        if keys[-1] in known:
            return known[keys[-1]]
        result = measure()
        whole = self.read()  # anew: measuring may have kept other results
        place = whole
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = result
        write(self.file, whole)
        print(*keys, result, file=sys.stderr, flush=True)
        return result
