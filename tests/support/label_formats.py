"""Label files in the forms in which tools export them, written here by hand, without the package.

Each writer takes a path, [(time in seconds, frame, name of the step)] and the frame rate. Intervals
end at the completion.
"""

import csv
import json


def start(time):
    return max(0.0, time - 0.4)


def table(delimiter, header, row):
    def write(path, events, fps):
        with path.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, delimiter=delimiter, lineterminator="\n")
            rows.writerows([header, *(row(*event) for event in events)])

    return write


def eaf(path, events, fps, origin=0):
    slots, found = [], []
    for i, (t, _, name) in enumerate(events):
        times = (round(1000 * start(t)) - origin, round(1000 * t) - origin)
        slots += [
            f'<TIME_SLOT TIME_SLOT_ID="ts{2 * i + k}" TIME_VALUE="{max(0, v)}"/>'
            for k, v in enumerate(times)
        ]
        found.append(
            f'<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a{i}" TIME_SLOT_REF1="ts{2 * i}" '
            f'TIME_SLOT_REF2="ts{2 * i + 1}"><ANNOTATION_VALUE>{name}</ANNOTATION_VALUE>'
            "</ALIGNABLE_ANNOTATION></ANNOTATION>"
        )
    path.write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n<ANNOTATION_DOCUMENT FORMAT="3.0" VERSION="3.0">\n'
        '<HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">\n<MEDIA_DESCRIPTOR '
        f'MEDIA_URL="file:///a.mp4" MIME_TYPE="video/mp4" TIME_ORIGIN="{origin}"/></HEADER>\n'
        f"<TIME_ORDER>{''.join(slots)}</TIME_ORDER>\n"
        f'<TIER TIER_ID="Steps of Ann">{"".join(found)}</TIER>\n'
        '<TIER TIER_ID="talk"/>\n</ANNOTATION_DOCUMENT>\n',
        encoding="utf-8",
    )


def task(path, events, fps, value):
    result = [
        {
            "id": f"r{i}",
            "type": "timelinelabels",
            "from_name": "s",
            "to_name": "video",
            "value": value(*e),
        }
        for i, e in enumerate(events)
    ]
    # What another annotator gave up, and regions without a time, are not read.
    other = {"id": 1, "was_cancelled": True, "result": [{"value": {"choices": ["x"]}}]}
    annotation = {"id": 2, "was_cancelled": False, "result": [*result, {"value": {"text": ["x"]}}]}
    data = {"video": "/data/upload/1/0a1b2c3d-a.mp4", "fps": fps}
    path.write_text(
        json.dumps([{"id": 7, "annotations": [other, annotation], "predictions": [], "data": data}])
    )


def ranges(t, frame, name):
    return {"ranges": [{"start": max(1, frame), "end": frame + 1}], "timelinelabels": [name]}


def labelstudio(path, events, fps):
    task(path, events, fps, ranges)


def labelstudio_seconds(path, events, fps):
    task(path, events, fps, lambda t, _, name: {"start": start(t), "end": t, "labels": [name]})


def cvat_images(path, events, fps):
    images = "".join(
        f'<image id="{f}" name="a/{f:06d}.jpg" width="4" height="4">'
        f'<tag label="{name}" source="manual"></tag></image>\n'
        for _, f, name in events
    )
    path.write_text(f"<annotations><version>1.1</version><meta/>\n{images}</annotations>")


def cvat_tracks(path, events, fps):
    """`frame` of these events is the number of a picture of the video."""
    box = '<box frame="{}" outside="{}" occluded="0" keyframe="1" xtl="0" ytl="0" xbr="1" ybr="1"/>'
    tracks = "".join(
        f'<track id="{i}" label="{name}" source="manual">'
        f"{box.format(max(0, f - 3), 0)}{box.format(f, 0)}{box.format(f + 1, 1)}</track>\n"
        for i, (_, f, name) in enumerate(events)
    )
    path.write_text(f"<annotations><version>1.1</version><meta/>\n{tracks}</annotations>")


# By file name, those whose times are seconds (or frames of the product, or ticks at its rate) ...
TIMED = {
    "times.csv": table(",", ["time", "step"], lambda t, _, name: [f"{t:.9f}", name]),
    "tabs.txt": table("\t", ["step", "time"], lambda t, _, name: [name.upper(), f"{t:.9f}"]),
    "intervals.csv": table(
        ",", ["start", "end", "step"], lambda t, _, n: [f"{start(t):.9f}", f"{t:.9f}", n]
    ),
    "a.eaf": eaf,
    "labelstudio_seconds.json": labelstudio_seconds,
}
# ... those that count frames of the product ...
FRAMED = {
    "frames.csv": table(",", ["frame", "step"], lambda _, f, name: [f, name]),
    "labelstudio.json": labelstudio,
    "cvat_images.xml": cvat_images,
}
# ... and those that count pictures of the video.
PICTURED = {"cvat_tracks.xml": cvat_tracks}
