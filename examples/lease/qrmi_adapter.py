"""The adapter for what QRMI drives (PyPI `qrmi`): machines of IBM, IQM, Pasqal, Alice & Bob, OQTOPUS.

    python3 qrmi_adapter.py RESOURCE TYPE          as  ibm_torino qiskit-runtime-service

Its environment has what QRMI reads: `RESOURCE_QRMI_…`. Addresses are set by `environment` of the machine, keys by
`secrets`.

Payloads are those of QRMI's own `task_runner`; of OQTOPUS, which that does not know, `{"job_spec": …}`.

QRMI gives no tag to a vendor (IQM aside) and finds no task by one. So this adapter refuses `find`: a task of which no
answer has come is `lost`, and not paid again.

Not tested with a vendor. What is tested: that its calls are those that qrmi 0.26.4 has.
"""

import json
import sys

import adapter

TYPES = {
    "ibm-quantum-system": "IBMQuantumSystem",
    "ibm-quantum-compute-service": "IBMQuantumComputeService",
    "qiskit-runtime-service": "IBMQiskitRuntimeService",
    "pasqal-cloud": "PasqalCloud",
    "pasqal-local": "PasqalLocal",
    "iqm-server": "IQMServer",
    "alice-bob-felis": "AliceBobFelis",
    "oqtopus": "OQTOPUS",
}

# Nothing was done, and would not be the next time.
REFUSALS = (
    "InvalidInputError",
    "TaskNotFoundError",
    "UnsupportedFunctionError",
    "UnsupportedPayloadError",
    "UnsupportedResourceTypeError",
)

# Nothing was done, and will be once somebody has mended the settings or the key, or the task is so far. Until then
# tasks wait.
LATER = (
    "AuthenticationFailedError",
    "ConfigError",
    "EnvVarNotSetError",
    "ResourceNotFoundError",
    "TaskNotReadyError",
)


class Vendor:
    def __init__(self, qrmi, name, kind):
        self.qrmi, self.name, self.kind = qrmi, name, kind
        self.resource = None

    def submit(self, tag, payload):
        try:
            payload = self.payload(tag, payload)
        except (KeyError, TypeError) as error:
            raise adapter.Fault("refused", f"the payload lacks what {self.kind} needs: {error}") from error
        return self.ask("task_start", payload)

    def find(self, tag):
        raise adapter.Fault("refused", "QRMI finds no task by a tag")

    def status(self, vendor_id):
        status, names = self.ask("task_status", vendor_id), self.qrmi.TaskStatus
        for word in ("Queued", "Running", "Completed", "Failed", "Cancelled"):
            if status == getattr(names, word):
                return word.lower(), self.logs(vendor_id) if word == "Failed" else None
        raise adapter.Fault("unknown", f"QRMI says {status}")

    def result(self, vendor_id):
        value = self.ask("task_result", vendor_id).value
        try:
            return json.loads(value)
        except ValueError:
            return value

    def cancel(self, vendor_id):
        self.ask("task_stop", vendor_id)

    def logs(self, vendor_id):
        try:
            return str(self.ask("task_logs", vendor_id))[-1000:]
        except adapter.Fault:
            return None

    def payload(self, tag, given):
        make = self.qrmi.Payload
        match self.kind:
            case "iqm-server":
                return make.IQMServer(
                    iqmjson=json.dumps(given["iqmjson"]),
                    use_timeslot=given["use_timeslot"],
                    tag=tag,
                    job_type=given["job_type"],
                )
            case "alice-bob-felis":
                human_qir, parameters = json.dumps(given["human_qir"]), json.dumps(given["input_params"])
                return make.AliceBobFelis(human_qir=human_qir, input_params=parameters)
            case "pasqal-cloud" | "pasqal-local":
                return make.PasqalCloud(sequence=json.dumps(given["sequence"]), job_runs=given["job_runs"])
            case "oqtopus":
                return make.Oqtopus(job_spec=json.dumps(given["job_spec"]))
        return make.QiskitPrimitive(input=json.dumps(given["parameters"]), program_id=given["program_id"])

    def ask(self, name, *arguments):
        named = lambda names: tuple(getattr(self.qrmi, name) for name in names)
        try:
            if self.resource is None:
                kind = getattr(self.qrmi.ResourceType, TYPES[self.kind])
                self.resource = self.qrmi.QuantumResource(self.name, kind)
            return getattr(self.resource, name)(*arguments)
        except named(LATER) as error:
            raise adapter.Fault("busy", f"{type(error).__name__}: {error}") from error
        except named(REFUSALS) as error:
            raise adapter.Fault("refused", f"{type(error).__name__}: {error}") from error


def main():
    if len(sys.argv) != 3 or sys.argv[2] not in TYPES:
        sys.exit(f"usage: qrmi_adapter.py RESOURCE TYPE; a TYPE is one of {', '.join(TYPES)}")
    import qrmi

    adapter.serve(Vendor(qrmi, *sys.argv[1:]))


if __name__ == "__main__":
    main()
