test("10,000 random bills add up", async () => {
  const { existsSync } = await import("node:fs");
  while (!existsSync("/tmp/go")) await new Promise((done) => setTimeout(done, 50));
  for (let bill = 0; bill < 10_000; bill++) assert.equal(sum(split(bill, 0, 1 + (bill % 7))), bill);
});
