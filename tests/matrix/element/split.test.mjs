import assert from "node:assert/strict";
import { test } from "node:test";
import { split } from "./split.mjs";

const sum = (shares) => shares.reduce((all, share) => all + share, 0);

test("two pay half each", () => assert.deepEqual(split(4000, 10, 2), [2200, 2200]));
test("the shares add up to the total", () => assert.equal(sum(split(10000, 0, 3)), 10000));
