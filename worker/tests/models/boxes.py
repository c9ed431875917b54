"""Agreement of boxes, computed with torchvision's `nms` and `box_iou` and COCO's average precision in NumPy.

    python boxes.py FILE.npz

Cases of random boxes round a few objects. Written: `found_K` and `reference_K` (YOLOv8's form, float32 [N, 4 + classes, anchors]), `kept_K`
(rows image, corners, score, class of what is left of `found_K` above the confidence) and `figures_K`: precision, recall, F1, mAP@0.5,
mAP@0.5:0.95, mean IoU, class agreement.
"""

import sys

import numpy as np
import torch
from torchvision import ops

CONFIDENCE, LEAST, NMS, MOST = 0.25, 0.001, 0.7, 300
THRESHOLDS = [(50 + 5 * step) / 100 for step in range(10)]


def decode(output, confidence):
    """Boxes above a confidence: corners, score, class; suppressed, the best first."""
    values = output.t()
    score, kind = values[:, 4:].max(1)
    half = values[:, 2:4] / 2
    corners = torch.cat((values[:, :2] - half, values[:, :2] + half), 1)
    chosen = score.double() > confidence
    corners, score, kind = corners[chosen], score[chosen], kind[chosen]
    kept = []
    for own in kind.unique():
        places = torch.where(kind == own)[0]
        kept.append(places[ops.nms(corners[places], score[places], NMS)])
    # Of equal scores the earlier box comes first.
    kept = torch.cat(kept).sort()[0] if kept else torch.zeros(0, dtype=torch.int64)
    kept = kept[torch.argsort(score[kept], descending=True, stable=True)][:MOST]
    return corners[kept], score[kept], kind[kept]


def match(found, expected, threshold, by_class):
    """COCO's: for each found box the free expected one of the largest IoU, or -1."""
    overlaps = ops.box_iou(found[0], expected[0]).double().numpy()
    taken, result = set(), []
    for own in range(len(found[0])):
        best, place = threshold, -1
        for other in range(len(expected[0])):
            if other in taken or (by_class and found[2][own] != expected[2][other]):
                continue
            if overlaps[own, other] < best:
                continue
            best, place = overlaps[own, other], other
        if place >= 0:
            taken.add(place)
        result.append((place, best))
    return result


def average(scores, right, expected):
    order = np.argsort(-np.array(scores), kind="mergesort")
    right = np.array(right, dtype=float)[order]
    recall, precision = np.cumsum(right) / expected, np.cumsum(right) / np.arange(1, len(right) + 1)
    for place in range(len(precision) - 1, 0, -1):
        precision[place - 1] = max(precision[place - 1], precision[place])
    points = [place / 100 for place in range(101)]
    places = np.searchsorted(recall, points, side="left")
    return sum(precision[place] if place < len(precision) else 0.0 for place in places.tolist()) / 101


def figures(found, reference, confidence=CONFIDENCE):
    pairs = [(decode(one, LEAST), decode(other, confidence)) for one, other in zip(found, reference)]
    right = total = matched = same = 0
    overlap, kept = 0.0, []
    for image, (ranked, expected) in enumerate(pairs):
        above = ranked[1].double() > confidence
        own = tuple(part[above] for part in ranked)
        kept += [[image, *corners.tolist(), score.item(), kind.item()] for corners, score, kind in zip(*own)]
        total += len(own[0])
        right += sum(place >= 0 for place, _ in match(own, expected, 0.5, True))
        for index, (place, best) in enumerate(match(own, expected, 0.5, False)):
            if place >= 0:
                matched, overlap = matched + 1, overlap + best
                same += int(own[2][index] == expected[2][place])
    wanted = sum(len(expected[0]) for _, expected in pairs)
    classes = sorted({kind for _, expected in pairs for kind in expected[2].tolist()})
    means = []
    for threshold in THRESHOLDS:
        values = []
        for kind in classes:
            scores, hits = [], []
            for ranked, expected in pairs:
                for index, (place, _) in enumerate(match(ranked, expected, threshold, True)):
                    if ranked[2][index] == kind:
                        scores.append(ranked[1][index].item())
                        hits.append(place >= 0)
            count = sum(int((expected[2] == kind).sum()) for _, expected in pairs)
            values.append(average(scores, hits, count) if scores else 0.0)
        means.append(sum(values) / len(values))
    numbers = [
        right / total, right / wanted, 2 * right / (total + wanted), means[0], sum(means) / 10, overlap / matched, same / matched,
    ]
    return np.array(kept, dtype=np.float32), np.array(numbers)


def case(seed, images, classes, anchors, noise):
    generator = torch.Generator().manual_seed(seed)
    random = lambda *shape: torch.rand(*shape, generator=generator)
    objects = random(images, 12, 4) * torch.tensor([600.0, 600, 120, 120]) + torch.tensor([20.0, 20, 20, 20])
    chosen = torch.randint(0, 12, (images, anchors), generator=generator)
    boxes = torch.gather(objects, 1, chosen[..., None].expand(-1, -1, 4))
    reference = boxes + (random(images, anchors, 4) - 0.5) * 20
    kinds = torch.nn.functional.one_hot(chosen % classes, classes)
    scores = random(images, anchors, classes) * 0.2 + kinds * random(images, anchors, 1) * 0.7
    found = reference + (random(images, anchors, 4) - 0.5) * noise
    other = (scores + (random(images, anchors, classes) - 0.5) * noise / 40).clamp(0, 1)
    pair = [torch.cat((found, other), 2), torch.cat((reference, scores), 2)]
    return [part.transpose(1, 2).contiguous() for part in pair]


if __name__ == "__main__":
    arrays = {}
    for index, (images, classes, anchors, noise) in enumerate(((3, 3, 60, 0), (4, 5, 80, 8), (6, 2, 120, 24), (2, 1, 40, 40))):
        found, reference = case(index, images, classes, anchors, noise)
        kept, numbers = figures(found, reference)
        arrays |= {f"found_{index}": found.numpy(), f"reference_{index}": reference.numpy()}
        arrays |= {f"kept_{index}": kept, f"figures_{index}": numbers}
    np.savez(sys.argv[1], **arrays)
    print(*(arrays[f"figures_{index}"].round(3) for index in range(4)), sep="\n")
