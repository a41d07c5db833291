// Where frames come from: the device's camera, or a video or pictures from disk.

/** The longest side that is sent: what is larger is scaled down. */
const MAX_SIDE = 1280;

function fit(width, height) {
  const scale = Math.min(1, MAX_SIDE / Math.max(width, height));
  return [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
}

function playing(video) {
  return {
    get size() { return [video.videoWidth, video.videoHeight]; },
    picture: video,
    get ready() { return video.readyState >= 2 && video.videoWidth > 0; },
    stop() {
      video.pause();
      for (const track of video.srcObject?.getTracks() ?? []) track.stop();
      if (video.src) URL.revokeObjectURL(video.src);
      video.srcObject = null;
      video.removeAttribute("src");
    },
  };
}

/** The camera; `facing` is "environment" or "user". */
export async function camera(video, facing) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error("browsers give the camera to pages on localhost and over HTTPS alone");
  }
  const wanted = { facingMode: { ideal: facing }, width: { ideal: 640 }, height: { ideal: 480 } };
  video.srcObject = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false });
  video.muted = true;
  await video.play();
  return playing(video);
}

/** A video, or pictures shown one after the other. */
export async function files(video, list) {
  const chosen = [...list];
  if (chosen.length === 1 && chosen[0].type.startsWith("video/")) {
    video.src = URL.createObjectURL(chosen[0]);
    video.loop = video.muted = true;
    await video.play();
    return playing(video);
  }
  const pictures = [];
  for (const file of chosen) if (file.type.startsWith("image/")) pictures.push(await createImageBitmap(file));
  if (pictures.length === 0) throw new Error("choose one video, or pictures");
  let next = 0;
  return {
    get picture() { return pictures[next % pictures.length]; },
    get size() { return [this.picture.width, this.picture.height]; },
    ready: true,
    taken() { next += 1; },
    stop() { for (const picture of pictures) picture.close(); },
  };
}

const canvas = document.createElement("canvas");

/** The next frame: a canvas of its own to show, and the same as JPEG to send. */
export async function take(source) {
  const [width, height] = fit(...source.size);
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").drawImage(source.picture, 0, 0, width, height);
  source.taken?.();
  const [shown, blob] = await Promise.all([
    createImageBitmap(canvas),
    new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.9)),
  ]);
  return { shown, jpeg: new Uint8Array(await blob.arrayBuffer()) };
}
