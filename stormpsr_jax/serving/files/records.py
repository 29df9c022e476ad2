"""What is told about events and alerts, as plain values for JSON."""

from typing import Any

from stormpsr_jax.psr.events import Event
from stormpsr_jax.psr.monitor import Alert
from stormpsr_jax.recordings.procedure import Procedure
from stormpsr_jax.serving.checklist import PERSON
from stormpsr_jax.serving.product_share import ProductShare


def kind_of(event: Event, certain: float) -> str:
    """Returns the type of an event's line: "event", "uncertain", "seen", "unsure", "gone" or
    "confirmed".

    That is a report, one of a confidence below `certain`, a step that was seen, one that is not
    sure, the end of that as the part was taken off, and one that a person has confirmed.
    """
    if event.stream == PERSON:
        return "confirmed"
    if event.kind != "report":
        return event.kind
    return "event" if event.confidence >= certain else "uncertain"


def confidence_of(event: Event) -> float:
    """Returns how sure an event is; of one that is not sure, the part's own evidence alone is."""
    if event.kind == "unsure":
        return event.evidence.get("own", event.confidence)
    return event.confidence


def of_event(
    event: Event, procedure: Procedure, calibrated: bool, fits: bool | None
) -> dict[str, Any]:
    """Returns what an event says, without when it was."""
    return {
        "step_id": event.step_id,
        "step": event.name,
        "component": procedure.components[event.step_id // 3],
        "state": event.state,
        "confidence": confidence_of(event),
        "stream": event.stream,
        "evidence": event.evidence,
        "calibrated": calibrated and event.stream != PERSON,
        "fits": fits,
    }


def of_alert(alert: Alert) -> dict[str, Any]:
    """Returns what an alert says, without when it was."""
    fields = {"alert": alert.kind, "message": alert.message, "step_id": alert.step_id}
    return fields | {"other": alert.other, "since": alert.since}


def of_product(product: ProductShare) -> dict[str, Any]:
    """Returns whether a source shows the model's product, and by which shares that is told."""
    share = product.share
    return {
        "fits": product.fits,
        "share": None if share is None else round(share, 4),
        "validation_share": product.of_model,
    }
