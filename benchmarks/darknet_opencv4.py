"""One side of `darknet.py`: OpenCV 4's Darknet importer, asked line by line. Needs cv2 4 and numpy, and nothing else.

A line {"do": "load", "cfg", "weights", "threads", "pictures"} or {"do": "block", "seconds"} → one line of an answer.
"""

import json
import sys
import time

import cv2
import numpy as np


def load(cfg: str, weights: str, threads: int, pictures: str) -> dict:
    global net, ends, blobs
    cv2.setNumThreads(threads)
    net = cv2.dnn.readNetFromDarknet(cfg, weights)
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    net.setPreferableTarget(cv2.dnn.DNN_TARGET_CPU)
    ends = net.getUnconnectedOutLayersNames()
    blobs = [cv2.dnn.blobFromImage(picture, 1 / 255) for picture in np.load(pictures)]
    return {"version": cv2.__version__, "boxes": [sum(int((out[:, 5:] > 0.25).sum()) for out in run(b)) for b in blobs]}


def run(blob: np.ndarray) -> list:
    net.setInput(blob)
    return net.forward(ends)


def block(seconds: float) -> dict:
    samples, end, turn = [], time.perf_counter() + seconds, 0
    while len(samples) < 3 or time.perf_counter() < end:
        start = time.perf_counter_ns()
        run(blobs[turn % len(blobs)])
        samples.append(time.perf_counter_ns() - start)
        turn += 1
    return {"ns": samples}


if __name__ == "__main__":
    for line in sys.stdin:
        asked = json.loads(line)
        answer = {"load": load, "block": block}[asked.pop("do")](**asked)
        print(json.dumps(answer), flush=True)
