// How many clips pass all thresholds at once: the joint histogram of the clips' coordinates, and counting over it.
//
// The coordinate of a clip on an axis is the number of the axis's stops that its value passes. A slider at strictness s
// keeps coordinates above s; -1 is off.

/** Bytes of base64. */
function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** Inflate raw deflated bytes. */
async function inflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/**
 * The cells of a joint histogram as typed arrays; an Error where the numbers do not add up.
 *
 * `bins` holds a number a cell and axis: the coordinate, behind those of the axes before (from `first[axis]` on).
 */
async function readJoint(joint, sizes) {
  const raw = await inflated(bytesOf(joint.data));
  const { cells } = joint;
  const width = sizes.length;
  const first = sizes.map((_, axis) => sum(sizes.slice(0, axis)));
  const bins = new Uint16Array(cells * width);
  const n = new Float64Array(cells);
  const ms = new Float64Array(cells);
  let at = 0;
  const next = () => {
    let byte = raw[at];
    at += 1;
    if (byte < 128) return byte;
    let number = byte & 127;
    let factor = 128;
    do {
      byte = raw[at];
      at += 1;
      number += (byte & 127) * factor;
      factor *= 128;
    } while (byte > 127);
    return number;
  };
  let key = 0;
  for (let cell = 0; cell < cells; cell += 1) {
    key += next();
    n[cell] = next();
    ms[cell] = next();
    let rest = key;
    for (let axis = width - 1; axis >= 0; axis -= 1) {
      const above = Math.floor(rest / sizes[axis]);
      bins[cell * width + axis] = first[axis] + rest - above * sizes[axis];
      rest = above;
    }
  }
  if (at !== raw.length) throw new Error(`the joint histogram has ${raw.length} bytes, of which ${at} were read`);
  return { sizes, first, cells, bins, n, ms };
}

/**
 * Count what passes at these strictnesses (one an axis of the joint histogram).
 *
 * Gives `n` and `ms` kept together; per axis `onlyN` and `onlyMs`, what it drops that no other does, and `byN`, clips by
 * coordinate among those that pass every other axis: from that follows what any place of that slider would keep.
 */
function countJoint({ sizes, first, cells, bins, n, ms }, strictness) {
  const width = sizes.length;
  const limit = Int32Array.from(strictness, (above, axis) => first[axis] + above);
  const counts = new Float64Array(sum(sizes));
  const onlyN = new Float64Array(width);
  const onlyMs = new Float64Array(width);
  let keptN = 0;
  let keptMs = 0;
  for (let cell = 0, from = 0; cell < cells; cell += 1, from += width) {
    let failing = -1;
    let fails = 0;
    for (let axis = 0; axis < width; axis += 1) {
      if (bins[from + axis] <= limit[axis]) {
        fails += 1;
        if (fails > 1) break;
        failing = axis;
      }
    }
    if (fails > 1) continue;
    const clips = n[cell];
    if (fails === 1) {
      counts[bins[from + failing]] += clips;
      onlyN[failing] += clips;
      onlyMs[failing] += ms[cell];
      continue;
    }
    keptN += clips;
    keptMs += ms[cell];
    for (let axis = 0; axis < width; axis += 1) counts[bins[from + axis]] += clips;
  }
  const byN = sizes.map((size, axis) => counts.slice(first[axis], first[axis] + size));
  return { n: keptN, ms: keptMs, byN, onlyN, onlyMs };
}

/** From numbers by coordinate: what strictness -1, 0, 1 ... would keep, one more than there are stops. */
function keptFrom(byCoordinate) {
  const kept = new Float64Array(byCoordinate.length);
  let total = 0;
  for (let i = byCoordinate.length - 1; i >= 0; i -= 1) {
    total += byCoordinate[i];
    kept[i] = total;
  }
  return kept;
}

// An axis

/** The strictness of the stop with this index (-1: off): values ascend, so on a `max` axis the last stop is the mildest. */
function strictnessOf(axis, stop) {
  if (stop < 0) return -1;
  return axis.side === "min" ? stop : axis.stops.length - 1 - stop;
}

/** Where on the slider, from left to right, a stop lies: values ascend, `off` is at the mild end. */
function placeOf(axis, stop) {
  if (axis.side === "min") return stop + 1;
  return stop < 0 ? axis.stops.length : stop;
}

/** The stop at a place of the slider; -1 is off. */
function stopAt(axis, place) {
  if (axis.side === "min") return place - 1;
  return place >= axis.stops.length ? -1 : place;
}

/** The stop whose value is nearest to x. */
function nearestStop(axis, x) {
  let best = 0;
  axis.stops.forEach((stop, i) => {
    if (Math.abs(stop - x) < Math.abs(axis.stops[best] - x)) best = i;
  });
  return best;
}
