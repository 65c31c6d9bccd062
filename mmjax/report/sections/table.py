"""The sections of the report, in their order."""

from collections.abc import Mapping

from mmjax.report.sections import (
    attention,
    calibration,
    captions,
    confusion,
    grounding,
    health,
    regions,
    retrieval,
    samples,
    sounds,
    videos,
)
from mmjax.report.sections.section import Section

SECTIONS: Mapping[str, Section] = {
    "retrieval": retrieval.SECTION,
    "confusion": confusion.SECTION,
    "calibration": calibration.SECTION,
    "regions": regions.SECTION,
    "captions": captions.SECTION,
    "samples": samples.SECTION,
    "attention": attention.SECTION,
    "grounding": grounding.SECTION,
    "sounds": sounds.SECTION,
    "videos": videos.SECTION,
    "health": health.SECTION,
}
