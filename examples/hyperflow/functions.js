// Runs the tasks of a HyperFlow workflow as jobs of hpc-queue. HyperFlow finds this file beside `workflow.json`:
//
//   hflow run DIR --var=function=hpcQueue
//
// `workflow.config.hpcQueue.json` in DIR says where jobs find the workflow's files, and which pool takes which program.

const { spawn } = require("node:child_process");

function hpcQueue(ins, outs, context, done) {
  const { executable, args, stdout } = context.executor;
  const { workDir, pools = {} } = context.appConfig.hpcQueue;
  const script = stdout ? 'cd "$0" && out=$1 && shift && exec "$@" > "$out"' : 'cd "$0" && exec "$@"';
  const argv = ["sh", "-c", script, workDir, ...(stdout ? [stdout] : []), executable, ...args];

  // The same key is the same job: with the WORKFLOW_RUN of an earlier start its jobs are taken up again.
  const run = process.env.WORKFLOW_RUN ?? `${context.hfId}:${context.appId}`;
  const options = ["--idempotency-key", `${run}:${context.procId}:${context.firingId}`];
  const pool = pools[executable] ?? pools["*"];
  if (pool) options.push("--pool", pool);

  const words = ["--output", "text", "submit", "--wait", "--task", "command", "--name", executable, "--input", "-"];
  const submit = spawn("laptop-consumer", [...words, ...options], { stdio: ["pipe", "pipe", "inherit"] });
  let result = "";
  submit.stdout.on("data", (text) => (result += text));
  // It may end before it has read all; then it says why.
  submit.stdin.on("error", () => {}).end(JSON.stringify({ argv }));
  submit.on("error", (error) => fail(executable, args, error));
  submit.on("close", (code) => (code === 0 ? done(null, outs) : fail(executable, args, result)));
}

// HyperFlow goes on waiting for what a task that failed does not make.
function fail(executable, args, why) {
  console.error(`${executable} ${args.join(" ")}\n${why}`);
  process.exit(1);
}

exports.hpcQueue = hpcQueue;
