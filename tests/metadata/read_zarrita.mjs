// Reads every array named on the command line with zarrita; prints what it holds, a line of JSON each.
//
//     node --input-type=module - v2|v3 FOLDER NAME... < read_zarrita.mjs      in the folder of node_modules
import FileSystemStore from "@zarrita/storage/fs";
import * as zarr from "zarrita";

const [version, folder, ...names] = process.argv.slice(2);
const root = zarr.root(new FileSystemStore(folder));

function values(data) {
  if (data instanceof BigInt64Array || data instanceof BigUint64Array) return Array.from(data, String);
  if (ArrayBuffer.isView(data)) return Array.from(data, (x) => (Number.isFinite(x) ? x : String(x)));
  return Array.from(data, (x) => (typeof x === "object" || typeof x === "bigint" ? String(x) : x));
}

for (const name of names) {
  let line;
  try {
    const array = await zarr.open[version](root.resolve(name), { kind: "array" });
    const chunk = await zarr.get(array);
    const whole = array.shape.length > 0;
    const held = whole ? values(chunk.data) : values([chunk]);
    line = { name, dtype: array.dtype, shape: array.shape, stride: whole ? chunk.stride : [], values: held };
  } catch (error) {
    line = { name, error: String(error).slice(0, 160) };
  }
  console.log(JSON.stringify(line));
}
