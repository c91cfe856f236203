// Bundles Element's interface (matrix-react-sdk) with the shell beside this file. Called by run.sh, inside the sandbox
// image, where the packages of package-lock.json are installed:
//
//   node build.mjs OUT
//
// OUT gets index.html, app.js, app.css, the worker, the language and the files that these name.
import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { basename, dirname, join } from "node:path";
import { build } from "esbuild";
import postcss from "postcss";
import postcssImport from "postcss-import";
import postcssMixins from "postcss-mixins";
import postcssNested from "postcss-nested";
import postcssScss from "postcss-scss";
import postcssSimpleVars from "postcss-simple-vars";

const [out] = process.argv.slice(2);
if (!out) {
  console.error("Usage: node build.mjs OUT");
  process.exit(2);
}
const here = import.meta.dirname;
const require = createRequire(import.meta.url);
const sdk = dirname(require.resolve("matrix-react-sdk/package.json"));
const jsSdk = dirname(require.resolve("matrix-js-sdk/package.json"));

// What its own build lays in other places, or the browser does not have: the address of the list of languages, the
// pieces of a room's export, Node's module that its translator asks for two checks.
const elsewhere = {
  "$webapp/i18n/languages.json": 'module.exports = "i18n/languages.json";',
  "!!raw-loader!./exportJS": 'export default "";',
  "!!raw-loader!./exportCustomCSS.css": 'export default "";',
  util: "exports.isArray = Array.isArray; exports.isDate = (value) => value instanceof Date;",
};

// Modules name each other's TypeScript sources; the same stand compiled in lib/.
const compiled = {
  name: "compiled",
  setup({ onResolve, onLoad, resolve }) {
    const within = (resolveDir, path) => resolve(`./${path}`, { resolveDir, kind: "require-call" });
    const script = (path) => path.replace(/\.tsx?$/, ".js");
    onResolve({ filter: /^matrix-js-sdk\/src\b/ }, ({ path }) =>
      within(join(jsSdk, "lib"), script(path.slice("matrix-js-sdk/src/".length)) || "index.js"));
    onResolve({ filter: /^matrix-react-sdk\/src\// }, ({ path }) =>
      within(join(sdk, "lib"), script(path.slice("matrix-react-sdk/src/".length))));
    onResolve({ filter: /^\.\.?\/(.*\/src\/|.*\.tsx?$)/ }, ({ path, resolveDir }) => {
      const whole = script(join(resolveDir, path)).replace(join(sdk, "src/"), join(sdk, "lib/"));
      return whole.startsWith(join(sdk, "lib/")) ? within("/", whole.slice(1)) : undefined;
    });
    const names = Object.keys(elsewhere).map((name) => name.replace(/[$.!]/g, "\\$&"));
    onResolve({ filter: new RegExp(`^(${names.join("|")})$`) }, ({ path }) => ({ path, namespace: "elsewhere" }));
    onLoad({ filter: /.*/, namespace: "elsewhere" }, ({ path }) => ({ contents: elsewhere[path] }));
  },
};

// Webpack makes workers of `new URL(…, import.meta.url)`; here each is an entry of its own, made by its name. Nobody
// records a voice message here: that one is left out.
const workers = {
  name: "workers",
  setup({ onLoad }) {
    onLoad({ filter: /matrix-react-sdk\/lib\/workers\/\w+WorkerFactory\.js$/ }, ({ path }) => ({
      contents: `export default (options) => new Worker("${basename(path, "WorkerFactory.js")}.worker.js", options);`,
    }));
    onLoad({ filter: /matrix-react-sdk\/lib\/audio\/recorderWorkletFactory\.js$/ }, () => ({
      contents: 'export default () => Promise.reject(new Error("no recorder here"));',
    }));
  },
};

// An SVG is imported both as its address and as a React component.
const pictures = {
  name: "pictures",
  setup({ onLoad, onResolve }) {
    onResolve({ filter: /\.svg$/ }, ({ path, kind, resolveDir, namespace }) => {
      if (kind === "url-token") return undefined;
      const found = path.startsWith(".") ? join(resolveDir, path) : createRequire(join(resolveDir, "_")).resolve(path);
      return namespace === "picture" ? { path: found, namespace: "file" } : { path: found, namespace: "picture" };
    });
    onLoad({ filter: /.*/, namespace: "picture" }, async ({ path }) => {
      const text = await readFile(path, "utf8");
      const [, attributes, inner] = /<svg\b([^>]*)>([\s\S]*)<\/svg>/.exec(text) ?? [null, "", ""];
      const props = {};
      for (const [, name, value] of attributes.matchAll(/([\w:-]+)="([^"]*)"/g)) {
        if (name === "xmlns" || name === "style") continue;
        props[name.replace(/[:-](\w)/g, (_, letter) => letter.toUpperCase())] = value;
      }
      return {
        resolveDir: dirname(path),
        contents: `
          import address from ${JSON.stringify(`./${basename(path)}`)};
          import React from "react";
          const inner = { __html: ${JSON.stringify(inner)} };
          export const Icon = React.forwardRef((props, ref) =>
            React.createElement("svg", { ...${JSON.stringify(props)}, ...props, ref, dangerouslySetInnerHTML: inner }));
          export default address;`,
      };
    });
  },
};

// The theme is written for PostCSS.
const styles = {
  name: "styles",
  setup({ onLoad }) {
    onLoad({ filter: /\.pcss$/ }, async ({ path }) => {
      const { css } = await postcss([
        postcssImport(), postcssMixins(), postcssSimpleVars(), postcssNested(),
      ]).process(await readFile(path, "utf8"), { from: path, parser: postcssScss, map: false });
      return { contents: css, loader: "css", resolveDir: dirname(path) };
    });
  },
};

// Scripts that run in workers of their own are addresses too.
const recorder = {
  name: "recorder",
  setup({ onLoad }) {
    onLoad({ filter: /opus-recorder\/dist\/.*\.js$/ }, async ({ path }) => ({
      contents: await readFile(path), loader: "file",
    }));
  },
};

const file = "file";
await mkdir(join(out, "i18n"), { recursive: true });
await build({
  entryPoints: {
    app: join(here, "shell/app.js"),
    theme: join(sdk, "res/themes/light/css/light.pcss"),
    "indexeddb.worker": join(sdk, "lib/workers/indexeddb.worker.js"),
    "blurhash.worker": join(sdk, "lib/workers/blurhash.worker.js"),
    "playback.worker": join(sdk, "lib/workers/playback.worker.js"),
  },
  outdir: out,
  bundle: true,
  minify: true,
  format: "iife",
  target: "chrome120",
  assetNames: "files/[name]-[hash]",
  define: { global: "globalThis", "process.env.NODE_ENV": '"production"' },
  inject: [join(here, "shell/node.js")],
  plugins: [compiled, workers, recorder, pictures, styles],
  loader: {
    ".svg": file, ".png": file, ".gif": file, ".woff": file, ".woff2": file, ".ttf": file, ".wasm": file,
    ".ogg": file, ".mp3": file,
  },
  logLevel: "warning",
  logLimit: 40,
});
await cp(join(here, "shell/index.html"), join(out, "index.html"));
await cp(join(sdk, "src/i18n/strings/en_EN.json"), join(out, "i18n/en_EN.json"));
await writeFile(join(out, "i18n/languages.json"), JSON.stringify({ en: "en_EN.json" }));
