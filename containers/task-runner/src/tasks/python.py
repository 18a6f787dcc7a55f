# The function `main` of a job, called. Whatever the job's code prints goes into the logs of the job.
import asyncio
import inspect
import json
import linecache
import os
import sys
import traceback
import types


def bad_job(sentence):
    """The job itself must be changed."""
    print(f"task-runner: {sentence}", file=sys.stderr)
    sys.exit(2)


work_dir = os.environ["WORK_DIR"]
with open(os.path.join(work_dir, "input.json"), encoding="utf-8") as file:
    given = json.load(file)["input"]
code, arguments = given["code"], given.get("args") or {}

# A traceback shows the lines of the code, and what defines classes finds their module.
name = "<input.code>"
linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
module = types.ModuleType("job")
sys.modules["job"] = module
try:
    compiled = compile(code, name, "exec")
except (SyntaxError, ValueError) as error:
    bad_job("`input.code` is not Python: " + "".join(traceback.format_exception_only(error)).strip())

try:
    exec(compiled, module.__dict__)
    main = module.__dict__.get("main")
    if not callable(main):
        bad_job("`input.code` defines no function main")
    try:
        inspect.signature(main).bind(**arguments)
    except TypeError as error:
        bad_job(f"`input.args` does not fit main{inspect.signature(main)}: {error}")
    except ValueError:
        pass  # Written in C, which does not tell.
    output = main(**arguments)
    if inspect.iscoroutine(output):
        output = asyncio.run(output)
except Exception as error:
    # Without the lines of this program.
    traceback.print_exception(type(error), error, error.__traceback__.tb_next)
    sys.exit(1)

try:
    text = json.dumps(output, allow_nan=False, ensure_ascii=False).encode("utf-8")
except (TypeError, ValueError, RecursionError) as error:
    print(f"task-runner: what main returned is not JSON: {error}", file=sys.stderr)
    sys.exit(1)

# Under another name first: output.json is there whole or not at all.
unfinished = os.path.join(work_dir, ".output.json.unfinished")
with open(unfinished, "wb") as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
os.replace(unfinished, os.path.join(work_dir, "output.json"))
