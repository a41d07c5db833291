//! Between the wire and the node's own types.

pub(super) mod camera;
pub(super) mod states;

use std::time::{Duration, Instant, SystemTime};

use image::ImageEncoder;

use super::status::item;
use super::{Identity, wire};
use crate::frame::Layout;
use crate::geometry::{BBox, SourcePx};
use crate::mask::{Mask, Rle};
use crate::node::{
    Counters, DropReason, FrameIn, FrameOptions, FrameReply, InstanceReply, Manner, NodeError, NodeErrorKind, Origin,
    Phrasing, Position, Reply, TargetReply, TargetSpec, Verdict,
};
use crate::pipeline::{GroundedInstance, Strategy};
use crate::prompt::{CountHint, LabelledPoint, PointLabel};
use states::{look, phase, why};

/// The most bytes of an optical frame's name.
const MAX_OPTICAL_FRAME_BYTES: usize = 256;
/// Of masks: two of 1920 x 1080, whose run lengths take half a millisecond.
const QUICK_PIXELS: usize = 1 << 22;

fn bad_request(what: impl Into<String>) -> NodeError {
    NodeError::new(NodeErrorKind::Request, what)
}

/// A frame with its options.
pub(super) fn frame(frame: wire::Frame, options: Option<wire::Options>) -> Result<FrameIn, NodeError> {
    if frame.optical_frame.len() > MAX_OPTICAL_FRAME_BYTES {
        return Err(bad_request(format!("read frame: an optical frame of {} bytes", frame.optical_frame.len())));
    }
    let options = self::options(options.unwrap_or_default())?;
    let layout = Layout {
        width: frame.width,
        height: frame.height,
        step: frame.step,
        big_endian: frame.is_bigendian,
        full_range: frame.full_range,
        chroma_offset: frame.chroma_offset,
        chroma_step: frame.chroma_step,
    };
    Ok(FrameIn {
        seq: frame.seq,
        stamp_ns: frame.stamp_ns,
        optical_frame: frame.optical_frame,
        encoding: camera::encoding(&frame.encoding, frame.encoding_id)?,
        layout,
        data: frame.data,
        depth: frame.depth.map(camera::depth).transpose()?,
        intrinsics: frame.intrinsics.map(|i| camera::intrinsics(&i)).transpose()?,
        options,
    })
}

pub(super) fn options(options: wire::Options) -> Result<FrameOptions, NodeError> {
    let png = match wire::MaskFormat::try_from(options.mask_format) {
        Ok(wire::MaskFormat::Unspecified | wire::MaskFormat::CocoRle) => false,
        Ok(wire::MaskFormat::Png) => true,
        Err(_) => return Err(bad_request(format!("read options: mask format {} is unknown", options.mask_format))),
    };
    let wire::Options { revise, anytime, evidence, .. } = options;
    let (max_wait, budget) = (limit(options.max_wait_ms), limit(options.budget_ms));
    Ok(FrameOptions { max_wait, budget, revise, anytime, png, evidence })
}

/// 0 stands for no limit.
fn limit(ms: u32) -> Option<Duration> {
    (ms > 0).then(|| Duration::from_millis(ms.into()))
}

/// How a command is to be asked.
pub(super) fn manner(hint: i32, strategy: i32) -> Result<Manner, NodeError> {
    let hint = match wire::CountHint::try_from(hint) {
        Ok(wire::CountHint::Unspecified | wire::CountHint::NoneOrMore) => CountHint::NoneOrMore,
        Ok(wire::CountHint::One) => CountHint::One,
        Ok(wire::CountHint::OneOrMore) => CountHint::OneOrMore,
        Err(_) => return Err(bad_request(format!("read target: count hint {hint} is unknown"))),
    };
    let strategy = match wire::Strategy::try_from(strategy) {
        Ok(wire::Strategy::Unspecified) => None,
        Ok(wire::Strategy::Box) => Some(Strategy::Box),
        Ok(wire::Strategy::Ppg) => Some(Strategy::Ppg),
        Ok(wire::Strategy::Pqpp) => Some(Strategy::Pqpp),
        Err(_) => return Err(bad_request(format!("read target: strategy {strategy} is unknown"))),
    };
    Ok(Manner { hint, strategy })
}

pub(super) fn strategy(strategy: Strategy) -> wire::Strategy {
    match strategy {
        Strategy::Box => wire::Strategy::Box,
        Strategy::Ppg => wire::Strategy::Ppg,
        Strategy::Pqpp => wire::Strategy::Pqpp,
    }
}

pub(super) fn target(target: wire::Target, phrasing: Phrasing) -> Result<TargetSpec, NodeError> {
    let manner = manner(target.hint, target.strategy)?;
    let spec = phrasing.target(target.target_id, &target.command, manner);
    Ok(TargetSpec { reground_after: limit(target.reground_after_ms), ..spec })
}

/// What became of a question. Encodes masks: milliseconds of work.
pub(super) fn answer(
    question_id: String,
    outcome: Result<FrameReply, NodeError>,
    provenance: &wire::Provenance,
) -> wire::PerceiveResponse {
    let outcome = match outcome {
        Ok(reply) => wire::answer::Outcome::Response(segment_response(&reply, provenance)),
        Err(error) => wire::answer::Outcome::Error(item(&error)),
    };
    let answer = wire::Answer { question_id, outcome: Some(outcome) };
    wire::PerceiveResponse { response: Some(wire::perceive_response::Response::Answer(answer)) }
}

/// A request that was refused.
pub(super) fn rejected(seq: Option<u64>, target_id: Option<String>, error: &NodeError) -> wire::PerceiveResponse {
    let rejected = wire::Rejected { seq, target_id, error: Some(item(error)) };
    wire::PerceiveResponse { response: Some(wire::perceive_response::Response::Rejected(rejected)) }
}

/// What made every answer of a node.
pub(super) fn provenance(identity: &Identity) -> wire::Provenance {
    wire::Provenance {
        bundle_name: identity.name.clone(),
        bundle_version: identity.version.clone(),
        bundle_fingerprint: identity.fingerprint.clone(),
        engine: identity.backend.clone(),
        engine_version: identity.backend_version.clone(),
        node_version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Whether [`reply`] takes a fraction of a millisecond: run lengths of no more than [`QUICK_PIXELS`].
pub(super) fn is_quick(reply: &Reply) -> bool {
    let Reply::Frame(frame) = reply else { return true };
    let masks = frame.targets.iter().flat_map(|t| &t.instances).map(|i| i.mask().size().pixels());
    !frame.meta.options.png && masks.sum::<usize>() <= QUICK_PIXELS
}

/// Encodes masks: milliseconds of work, where not [`is_quick`].
pub(super) fn reply(reply: Reply, provenance: &wire::Provenance) -> wire::PerceiveResponse {
    match reply {
        Reply::Rejected { seq, error } => rejected(Some(seq), None, &error),
        Reply::Frame(frame) => {
            let response = wire::perceive_response::Response::Frame(frame_result(&frame, provenance));
            wire::PerceiveResponse { response: Some(response) }
        }
    }
}

fn frame_result(reply: &FrameReply, provenance: &wire::Provenance) -> wire::FrameResult {
    let meta = &reply.meta;
    let (targets, timings) = target_results(reply);
    wire::FrameResult {
        seq: meta.seq,
        stamp_ns: meta.stamp_ns,
        optical_frame: meta.optical_frame.clone(),
        received_ns: unix_ns(meta.received),
        targets,
        timings,
        counters: Some(counters(&reply.counters)),
        revision: reply.revision,
        partial: reply.partial,
        width: reply.size.map_or(0, |s| s.width),
        height: reply.size.map_or(0, |s| s.height),
        provenance: Some(provenance.clone()),
        intrinsics: meta.intrinsics.as_ref().map(camera::echo),
        // Last, so that it covers the masks' encoding.
        sent_ns: unix_ns(meta.now()),
    }
}

/// The reply to a unary call. Encodes masks: milliseconds of work.
pub(super) fn segment_response(reply: &FrameReply, provenance: &wire::Provenance) -> wire::SegmentResponse {
    let meta = &reply.meta;
    let (targets, timings) = target_results(reply);
    wire::SegmentResponse {
        seq: meta.seq,
        stamp_ns: meta.stamp_ns,
        optical_frame: meta.optical_frame.clone(),
        received_ns: unix_ns(meta.received),
        result: targets.into_iter().next(),
        timings,
        width: reply.size.map_or(0, |s| s.width),
        height: reply.size.map_or(0, |s| s.height),
        provenance: Some(provenance.clone()),
        intrinsics: meta.intrinsics.as_ref().map(camera::echo),
        sent_ns: unix_ns(meta.now()),
    }
}

/// The targets, and all timings with that of their own encoding.
fn target_results(reply: &FrameReply) -> (Vec<wire::TargetResult>, Vec<wire::Timing>) {
    let start = Instant::now();
    let targets = reply.targets.iter().map(|t| target_result(t, reply.meta.options)).collect();
    let encode = [("encode", start.elapsed())];
    (targets, [timings(&reply.timings), timings(&encode)].concat())
}

fn target_result(target: &TargetReply, options: FrameOptions) -> wire::TargetResult {
    let evidence = target.grounding.as_ref().filter(|_| options.evidence);
    wire::TargetResult {
        target_id: target.target_id.clone(),
        verdict: verdict(target.verdict).into(),
        confidence: target.confidence,
        instances: target.instances.iter().map(|i| instance(i, options)).collect(),
        error: target.error.as_ref().map(item),
        evidence: evidence.map(|(seq, grounding)| wire::TargetEvidence {
            seq: *seq,
            answer: grounding.answer.clone(),
            passes: grounding.passes,
            timings: timings(&grounding.timings),
            strategy: strategy(grounding.strategy).into(),
            malformed: grounding.malformed.map(|error| error.to_string()).unwrap_or_default(),
            passes_one_by_one: grounding.decoded.one_by_one,
            drafted_tokens: grounding.decoded.drafted,
            accepted_tokens: grounding.decoded.accepted,
            near_ties: grounding.decoded.near_ties,
        }),
        phase: phase(target.phase).into(),
        look: look(target.look).into(),
        why: target.why.map_or(wire::Why::Unspecified, why).into(),
        proposals: target.proposals.iter().copied().map(bbox).collect(),
        partial: target.partial,
    }
}

fn instance(instance: &InstanceReply, options: FrameOptions) -> wire::Instance {
    wire::Instance {
        instance_id: instance.id(),
        mask: Some(mask(instance.mask(), options.png)),
        r#box: Some(bbox(instance.bbox())),
        mask_score: instance.mask_score(),
        confidence: instance.confidence(),
        origin: origin(instance.origin).into(),
        grounded_seq: instance.grounded_seq(),
        grounded_age_ms: age_ms(instance.grounded_age),
        mask_seq: instance.mask_seq(),
        mask_age_ms: age_ms(instance.mask_age),
        evidence: Some(evidence(instance.evidence())),
        position: instance.position().map(position),
    }
}

fn evidence(instance: &GroundedInstance) -> wire::InstanceEvidence {
    let point = |p: &LabelledPoint| wire::Point {
        x: p.point.x,
        y: p.point.y,
        p_yes: p.p_yes,
        label: match p.label {
            PointLabel::On => wire::PointLabel::On,
            PointLabel::Off => wire::PointLabel::Off,
            PointLabel::Unsure => wire::PointLabel::Unsure,
        }
        .into(),
    };
    wire::InstanceEvidence {
        proposal: Some(bbox(instance.proposal)),
        points: instance.points.iter().map(point).collect(),
    }
}

fn position(position: &Position) -> wire::Position {
    let vector = |[x, y, z]: [f32; 3]| Some(wire::Vector { x, y, z });
    wire::Position {
        centroid: vector(position.centroid),
        min: vector(position.min),
        max: vector(position.max),
        depth_pixels: position.measured,
        used_pixels: position.used,
        distorted: position.distorted,
    }
}

fn bbox(b: BBox<SourcePx>) -> wire::Box {
    wire::Box { x1: b.x1, y1: b.y1, x2: b.x2, y2: b.y2 }
}

fn mask(mask: &Mask, png: bool) -> wire::Mask {
    let (width, height) = (mask.size().width, mask.size().height);
    let data = if png {
        wire::mask::Data::Png(png_file(mask))
    } else {
        wire::mask::Data::CocoRle(Rle::encode(mask).to_coco_string())
    };
    wire::Mask { width, height, data: Some(data) }
}

fn png_file(mask: &Mask) -> Vec<u8> {
    let grey: Vec<u8> = mask.bits().iter().map(|b| b * 255).collect();
    let mut file = Vec::new();
    image::codecs::png::PngEncoder::new(&mut file)
        .write_image(&grey, mask.size().width, mask.size().height, image::ExtendedColorType::L8)
        .expect("a mask has one byte a pixel, and memory takes every write");
    file
}

fn verdict(verdict: Verdict) -> wire::Verdict {
    match verdict {
        Verdict::Found => wire::Verdict::Found,
        Verdict::Absent => wire::Verdict::Absent,
        Verdict::Ambiguous => wire::Verdict::Ambiguous,
        Verdict::Unsure => wire::Verdict::Unsure,
        Verdict::Pending => wire::Verdict::Pending,
        Verdict::Lost => wire::Verdict::Lost,
        Verdict::Failed => wire::Verdict::Failed,
        Verdict::Paused => wire::Verdict::Paused,
    }
}

fn origin(origin: Origin) -> wire::Origin {
    match origin {
        Origin::Grounded => wire::Origin::Grounded,
        Origin::Tracked => wire::Origin::Tracked,
        Origin::Stale => wire::Origin::Stale,
    }
}

fn counters(counters: &Counters) -> wire::Counters {
    let dropped = |reason: DropReason| wire::Dropped {
        frames: counters.dropped(reason),
        reason: match reason {
            DropReason::Superseded => wire::DropReason::Superseded,
            DropReason::Undecodable => wire::DropReason::Undecodable,
            DropReason::Deadline => wire::DropReason::Deadline,
            DropReason::OutOfOrder => wire::DropReason::OutOfOrder,
            DropReason::Draining => wire::DropReason::Draining,
            DropReason::Quota => wire::DropReason::Quota,
        }
        .into(),
    };
    wire::Counters {
        received: counters.received,
        answered: counters.answered,
        waiting: counters.waiting,
        stamps_back: counters.stamps_back,
        dropped: DropReason::ALL.into_iter().map(dropped).filter(|d| d.frames > 0).collect(),
    }
}

fn timings(timings: &[(&'static str, Duration)]) -> Vec<wire::Timing> {
    let timing = |(stage, time): &(&'static str, Duration)| wire::Timing {
        stage: (*stage).to_owned(),
        ms: time.as_secs_f32() * 1e3,
    };
    timings.iter().map(timing).collect()
}

fn age_ms(age: Duration) -> u32 {
    u32::try_from(age.as_millis()).unwrap_or(u32::MAX)
}

fn unix_ns(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
