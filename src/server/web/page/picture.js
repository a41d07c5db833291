// Frames with what was answered about them: masks, boxes, points, on a canvas.

/** Colours of targets, told apart by people who see few of them too. */
export const COLOURS = ["#2fd6a5", "#ffb000", "#5b9dff", "#ff6fae", "#b58cff", "#e8e337", "#ff7a45", "#4fd8ff"];

/**
 * COCO's compressed run lengths as a mask: one byte a pixel, row after row.
 * Each length has five bits a character, the lowest first; from the third on it is the difference to the one two before.
 */
export function decodeMask(text, width, height) {
  const mask = new Uint8Array(width * height);
  const runs = [];
  let at = 0, pixel = 0, on = false;
  while (at < text.length) {
    let value = 0, shift = 0, more = true;
    while (more) {
      const bits = text.charCodeAt(at++) - 48;
      if (!(bits >= 0 && bits < 64) || shift > 30) throw new RangeError("no run-length string");
      value |= (bits & 31) << shift;
      more = (bits & 32) !== 0;
      shift += 5;
      if (!more && (bits & 16) !== 0 && shift < 32) value |= -1 << shift;
    }
    if (runs.length > 2) value += runs[runs.length - 2];
    if (value < 0 || pixel + value > mask.length) throw new RangeError("run lengths go beyond the picture");
    runs.push(value);
    if (on) for (let end = pixel + value, i = pixel; i < end; i++) mask[(i % height) * width + Math.floor(i / height)] = 1;
    pixel += value;
    on = !on;
  }
  if (pixel !== mask.length) throw new RangeError("run lengths do not cover the picture");
  return mask;
}

function rgb(colour) {
  return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
}

/** A canvas with the mask in a colour, its edge solid. */
function tint(mask, width, height, colour) {
  const [r, g, b] = rgb(colour);
  const image = new ImageData(width, height), out = image.data;
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (!mask[i]) continue;
      const edge = x < 2 || y < 2 || x >= width - 2 || y >= height - 2 ||
        !(mask[i - 2] && mask[i + 2] && mask[i - 2 * width] && mask[i + 2 * width]);
      out.set([r, g, b, edge ? 255 : 105], 4 * i);
    }
  }
  const layer = document.createElement("canvas");
  layer.width = width;
  layer.height = height;
  layer.getContext("2d").putImageData(image, 0, 0);
  return layer;
}

function points(context, instance, unit) {
  for (const point of instance.evidence?.points ?? []) {
    // 1 on, 2 off, 3 unsure: told by shape as well as by colour.
    const size = 3.2 * unit;
    context.lineWidth = 1.6 * unit;
    context.strokeStyle = "#0b0f14";
    context.fillStyle = point.label === 1 ? "#6dff9b" : point.label === 2 ? "#ff5d5d" : "#ffffff";
    context.globalAlpha = point.label === 3 ? 0.55 : 1;
    context.beginPath();
    if (point.label === 2) context.rect(point.x - size, point.y - size, 2 * size, 2 * size);
    else context.arc(point.x, point.y, size, 0, 7);
    context.stroke();
    context.fill();
  }
  context.globalAlpha = 1;
}

function label(context, text, box, colour, unit) {
  context.font = `600 ${13 * unit}px system-ui, sans-serif`;
  const width = context.measureText(text).width + 12 * unit, height = 20 * unit;
  const x = Math.max(0, Math.min(box.x1, context.canvas.width - width));
  const y = box.y1 > height + 2 * unit ? box.y1 - height - 2 * unit : Math.min(box.y2 + 2 * unit, context.canvas.height - height);
  context.fillStyle = colour;
  context.beginPath();
  context.roundRect(x, y, width, height, 5 * unit);
  context.fill();
  context.fillStyle = "#0b0f14";
  context.textBaseline = "middle";
  context.fillText(text, x + 6 * unit, y + height / 2 + unit);
}

/** Draws a frame and the targets' instances; `show` says which of masks, boxes and points. */
export function draw(canvas, picture, targets, colourOf, show) {
  if (canvas.width !== picture.width) canvas.width = picture.width;
  if (canvas.height !== picture.height) canvas.height = picture.height;
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0);
  // A pixel of the screen: lines and letters are of one size, however large the picture is.
  const unit = picture.width / (canvas.clientWidth || picture.width);
  const labels = [];
  for (const target of targets) {
    const colour = colourOf(target.target_id);
    for (const instance of target.instances) {
      const mask = instance.mask;
      if (show.masks && mask?.coco_rle !== undefined && mask.width === picture.width && mask.height === picture.height) {
        context.drawImage(tint(decodeMask(mask.coco_rle, mask.width, mask.height), mask.width, mask.height, colour), 0, 0);
      }
      if (show.boxes) {
        const box = instance.box;
        context.strokeStyle = colour;
        context.lineWidth = 2 * unit;
        context.setLineDash([]);
        if (box) context.strokeRect(box.x1, box.y1, box.x2 - box.x1, box.y2 - box.y1);
        const proposal = instance.evidence?.proposal;
        context.setLineDash([5 * unit, 4 * unit]);
        if (proposal && instance.mask_seq === instance.grounded_seq) {
          context.strokeRect(proposal.x1, proposal.y1, proposal.x2 - proposal.x1, proposal.y2 - proposal.y1);
        }
        context.setLineDash([]);
      }
      // They are where the language model saw them: on frames after that the object may be elsewhere.
      if (show.points) points(context, instance, unit);
      if (instance.box) labels.push([`${target.target_id} ${Math.round(100 * instance.confidence)} %`, instance.box, colour]);
    }
  }
  for (const [text, box, colour] of labels) label(context, text, box, colour, unit);
}
