// What Webpack would give to the modules that use Node's globals.
export { Buffer } from "buffer/";
export const process = {
  env: {},
  browser: true,
  cwd: () => "/",
  nextTick: (call, ...given) => queueMicrotask(() => call(...given)),
};
