"""A fifth stream: a step completes after so many pictures in which both networks agree on it."""

import dataclasses

from stormpsr_jax.psr.events import Event, top_detection
from stormpsr_jax.psr.stream import Appearance, Stream


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Settings: the number of pictures."""

    pictures: float = 2.0

    def __post_init__(self):
        if not self.pictures >= 1:
            raise ValueError(f"pictures {self.pictures} is not a number from 1 up")


class Decoder:
    stream, belief, floor = "both", None, 0.0

    def __init__(self, procedure, variant, settings):
        self.procedure, self.variant, self.settings = procedure, variant, settings
        self._now = list(variant.initial_state)
        self._agreed = [0] * procedure.num_components
        self._frame = -1

    @property
    def assembly(self):
        return tuple(self._now)

    def observe(self, frame, seen, frame_step=1):
        self._frame = frame
        top, _ = top_detection(frame, seen.detections, self.procedure.error_class)
        if seen.windows is None or not 1 <= top <= self.procedure.num_states:
            return []
        events, fps = [], self.procedure.fps
        for k, shown in enumerate(self.procedure.states[top - 1].tolist()):
            self._agreed[k] += shown != self._now[k] and seen.windows[k] > 0.3
            if self._agreed[k] >= self.settings.pictures:
                step = 3 * k + 2 * self._now[k]
                name = self.procedure.step_name(step)
                events.append(Event(frame, step, 0.75, "both", {}, name, frame / fps))
                self._now[k], self._agreed[k] = shown, 0
        return events

    def state(self):
        return {"frame": self._frame, "now": self._now, "agreed": self._agreed}

    def restore(self, state):
        self._frame = state["frame"]
        self._now, self._agreed = list(state["now"]), list(state["agreed"])


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class AgreementStream(Stream):
    """What others have to know of it."""

    def decoder(self, procedure, variant, settings, *, calibration=None, weights=None):
        return Decoder(procedure, variant, settings)

    def grid(self, base, chosen):
        return [Agreement(n) for n in (1.0, 2.0, 4.0, 1000.0)]

    def fixed_settings(self, procedure, base, threshold=0.0, paper=True):
        return [Agreement()]


BOTH = AgreementStream(
    name="both",
    needs=("detections", "windows"),
    settings=Agreement,
    threshold="pictures",
    decoders=("confidence", "expected"),
    appearance=Appearance(
        title="Both agree",
        short="Both",
        colour="amber",
        meaning="Pictures in which both networks agree.",
        summary="both, where they agree",
        threshold="the number of pictures",
        describe=lambda settings: f"Both agreed in {settings.pictures:g} pictures.",
    ),
)
