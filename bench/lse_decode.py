#!/usr/bin/python3
"""What a token costs after 1k ... 1M others, in one layer: log-sum-exp attention beside softmax attention, both in sparsam,
and beside llama.cpp's softmax layer of equal shape (24 heads of 32, its cache in f16). One thread each.

    cmake --build build/release --target bench_constant_cost
    bench/lse_decode.py [--package node_modules] [--positions 1024,4096,16384,65536] [--out results.json]

What has been measured is kept in --out and not measured again. llama.cpp comes from the npm package node-llama-cpp. Each
number is the shortest of nine times 64 tokens; all of it includes norm, projections, the head over 256 tokens and, in
models with an MLP, one of 32 channels. sparsam's softmax cache is filled with random keys and values; llama.cpp reads a
prompt, whose 64k tokens take minutes.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
sys.path.insert(0, os.path.join(ROOT, "tools"))
STEPS, TURNS = 64, 9


def sparsam(program, kind, positions):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run([program, "decode", kind, *map(str, positions)], env=environment, stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in run.stdout.splitlines()]


def llama_cpp(package, program, positions):
    import llama_cpp as peer_module
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "softmax.gguf")
        subprocess.run([program, "gguf", path], check=True)
        peer = peer_module.Peer(package, path, positions[-1] + (TURNS + 1) * STEPS, False, fast=True)
        done, ids = 0, [(7 * i) % 256 for i in range(512)]
        for position in positions:
            while done < position:
                count = min(512, position - done)
                peer.forward(ids[:count], done)
                done += count
            best = 1e9
            for _ in range(TURNS):
                begin = time.perf_counter()
                for i in range(STEPS):
                    peer.forward([ids[i]], done)
                    done += 1
                best = min(best, time.perf_counter() - begin)
            yield dict(position=position, microseconds=1e6 * best / STEPS)


def crossover(constant, growing):
    """The position from which on the growing cost is above the constant one, between measured positions by a line."""
    level = sorted(row["microseconds"] for row in constant)[len(constant) // 2]
    points = [(row["position"], row["microseconds"]) for row in growing]
    if points[0][1] >= level:  # on the line through the first two
        slope = (points[1][1] - points[0][1]) / (points[1][0] - points[0][0])
        return max(0, points[0][0] - (points[0][1] - level) / slope)
    for (p, a), (q, b) in zip(points, points[1:]):
        if a < level <= b:
            return p + (q - p) * (level - a) / (b - a)
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=os.path.join(ROOT, "build/release/bench_constant_cost"))
    parser.add_argument("--package", default=os.environ.get("NODE_LLAMA_CPP"))
    parser.add_argument("--positions", default="1024,4096,16384,65536", help="of softmax attention")
    parser.add_argument("--long", default="1024,4096,16384,65536,131072,1048576", help="of log-sum-exp attention")
    parser.add_argument("--out", default="lse_decode.json")
    flags = parser.parse_args()
    short, long = ([int(p) for p in text.split(",")] for text in (flags.positions, flags.long))
    results = json.load(open(flags.out)) if os.path.exists(flags.out) else {}

    def measured(name, measure):
        if name not in results:
            results[name] = list(measure())
            with open(flags.out + ".part", "w") as file:
                json.dump(results, file, indent=1)
            os.replace(flags.out + ".part", flags.out)
        return {row["position"]: row for row in results[name]}

    columns = {"lse": measured("lse", lambda: sparsam(flags.program, "lse", long)),
               "lse, plain": measured("plain", lambda: sparsam(flags.program, "plain", long)),
               "softmax": measured("softmax", lambda: sparsam(flags.program, "softmax", short))}
    if flags.package:
        columns["llama.cpp"] = measured("llama.cpp", lambda: llama_cpp(flags.package, flags.program, short))

    print("| tokens before | " + " | ".join(f"{name}, us" for name in columns) + " | resident, MB |")
    print("|--:" * (len(columns) + 2) + "|")
    for position in long:
        cells = [f"{rows[position]['microseconds']:.0f}" if position in rows else "" for rows in columns.values()]
        print(f"| {position} | " + " | ".join(cells) + f" | {columns['lse'][position]['resident_megabytes']:.0f} |")
    for name in ("lse", "lse, plain"):
        costs = [row["microseconds"] for row in columns[name].values()]
        print(f"{name}: the dearest position costs {max(costs) / min(costs) - 1:.1%} more than the cheapest")
        for other in ("softmax", "llama.cpp"):
            if other not in columns:
                continue
            last = max(set(columns[other]) & set(columns[name]))
            ratio = columns[other][last]["microseconds"] / columns[name][last]["microseconds"]
            at = crossover(list(columns[name].values()), list(columns[other].values()))
            print(f"  {other} costs as much at {at:.0f} tokens; at {last} it costs {ratio:.1f} times as much" if at is not None
                  else f"  {other} costs less up to {last}: {ratio:.2f} times as much")


if __name__ == "__main__":
    main()
