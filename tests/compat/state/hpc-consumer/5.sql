-- STATE_DIR/state.db of version 5: since when an instance is idle.
CREATE TABLE finished (
    no          INTEGER PRIMARY KEY,     -- in the order in which they ended
    job_id      TEXT NOT NULL UNIQUE,
    finished_ms INTEGER NOT NULL
) STRICT;
INSERT INTO "finished" VALUES(1,'has-ended',1800000003000);
CREATE TABLE jobs (
    no             INTEGER PRIMARY KEY,  -- in the order of acceptance
    job_id         TEXT NOT NULL UNIQUE,
    stage          INTEGER NOT NULL,     -- 0 waits, 1 its last attempt may be running, 2 its final record is owed
    attempt        INTEGER NOT NULL,     -- the last one that was launched, or 0
    retries        INTEGER NOT NULL,
    rerunnable     INTEGER NOT NULL,
    task_failures  INTEGER NOT NULL,
    node_failures  INTEGER NOT NULL,
    cut_off        INTEGER NOT NULL,
    lease_id       TEXT,                 -- these two together, or none
    lease_until_ms INTEGER,
    accepted_ms    INTEGER NOT NULL,
    changed_ms     INTEGER NOT NULL      -- since when it is in its stage
, lease_deliveries INTEGER, pool TEXT, launched TEXT, is_graph INTEGER NOT NULL DEFAULT 0, parent TEXT, generation INTEGER, unwanted INTEGER NOT NULL DEFAULT 0, rounds INTEGER, children INTEGER, seen INTEGER, waits_for_any INTEGER, service TEXT, services TEXT, idle_since_ms INTEGER) STRICT;
INSERT INTO "jobs" VALUES(1,'waits',0,0,0,1,0,0,0,'lease-1',1800000060000,1800000000000,1800000000000,1,NULL,NULL,0,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES(2,'runs-again',1,3,2,0,1,0,1,NULL,NULL,1800000000000,1800000001000,NULL,'gpu','{"cpus":4,"memory":2147483648,"gpus":[0,3]}',0,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES(4,'is-owed',2,1,0,1,0,2,0,'lease-4',1800000060000,1800000000000,1800000002000,2,'cpu','{"cpus":1}',0,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES(5,'parked',3,2,0,1,0,0,0,'lease-5',1800000060000,1800000000000,1800000002000,1,'cpu','{"cpus":1}',1,NULL,NULL,0,2,3,1,1,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES(6,'parked-3',0,0,0,1,0,0,0,NULL,NULL,1800000002000,1800000002000,NULL,NULL,NULL,0,'parked',1,1,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES(7,'service-vqpu-a1b2c3d4-1',1,1,0,0,0,0,0,NULL,NULL,1800000002000,1800000002000,NULL,'gpu','{"cpus":1}',0,NULL,NULL,0,NULL,NULL,NULL,NULL,'vqpu',NULL,1800000004000);
INSERT INTO "jobs" VALUES(8,'uses-it',1,1,0,1,0,0,0,'lease-8',1800000060000,1800000002000,1800000002000,1,'cpu','{"cpus":1}',0,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL,'{"vqpu":"service-vqpu-a1b2c3d4-1"}',NULL);
CREATE TABLE messages (
    no      INTEGER PRIMARY KEY,
    message TEXT NOT NULL
) STRICT;
INSERT INTO "messages" VALUES(1,'{"v":1,"job_id":"waits","task":"echo","input":{"text":"é"},"created_at":"2026-11-21T01:00:00Z"}');
INSERT INTO "messages" VALUES(2,'{"v":1,"job_id":"runs-again","task":"echo","input":{"text":"é"},"created_at":"2026-11-21T01:00:00Z"}');
INSERT INTO "messages" VALUES(4,'{"v":1,"job_id":"is-owed","task":"echo","input":{"text":"é"},"created_at":"2026-11-21T01:00:00Z"}');
INSERT INTO "messages" VALUES(5,'{"v":1,"job_id":"parked","task":"echo","input":{"text":"é"},"created_at":"2026-11-21T01:00:00Z"}');
INSERT INTO "messages" VALUES(6,'{"v":1,"job_id":"parked-3","task":"echo","input":{"text":"é"},"created_at":"2026-11-21T01:00:00Z"}');
INSERT INTO "messages" VALUES(7,'{"v":1,"job_id":"service-vqpu-a1b2c3d4-1","created_at":"2026-11-21T01:00:00Z","task":"service vqpu","input":null,"rerunnable":false}');
INSERT INTO "messages" VALUES(8,'{"v":3,"job_id":"uses-it","task":"echo","input":{"text":"é"},"needs":["vqpu"],"created_at":"2026-11-21T01:00:00Z"}');
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,  -- owner: the id of this state; boot_id: the boot of which all files are known to be there
    value TEXT NOT NULL
) STRICT;
INSERT INTO "meta" VALUES('owner','abcdefgh234567ab');
INSERT INTO "meta" VALUES('boot_id','6f0c5a3e-1111-4222-8333-444455556666');
CREATE TABLE records (
    no     INTEGER PRIMARY KEY,          -- of a job, or for a while of one that has ended
    job_id TEXT NOT NULL,
    record TEXT NOT NULL
) STRICT;
INSERT INTO "records" VALUES(3,'has-ended','{"v":1,"job_id":"has-ended","status":"completed","attempt":1,"result_pointer":"file:///results/has-ended/output.json"}');
INSERT INTO "records" VALUES(4,'is-owed','{"v":1,"job_id":"is-owed","status":"completed","attempt":1,"result_pointer":"file:///results/is-owed/output.json"}');
PRAGMA user_version = 5;
