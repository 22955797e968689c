// What is seen first is drawn first: everything else waits for the first frame. A page in the
// background has no frames to wait for.

const begin = () => import("./main.js");
if (document.hidden) begin();
else requestAnimationFrame(() => setTimeout(begin));
