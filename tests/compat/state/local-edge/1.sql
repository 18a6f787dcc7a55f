-- queues.sqlite of version 1: local-edge before its first migration, as sqlite3 has dumped it.
CREATE TABLE queues (
    no                  INTEGER PRIMARY KEY,
    id                  TEXT NOT NULL UNIQUE,
    name                TEXT NOT NULL UNIQUE,
    created_ms          INTEGER NOT NULL,
    modified_ms         INTEGER NOT NULL,
    settings            TEXT NOT NULL,  -- JSON
    purged_ms           INTEGER,        -- the last time that all messages were purged
    consumer_id         TEXT,           -- these three together, or none
    consumer_created_ms INTEGER,
    consumer            TEXT            -- JSON
) STRICT;
INSERT INTO queues VALUES(1,'fd852d15f5f3ae24e187699b44c554ce','hpc-jobs',1795969089752,1795969089752,'{"delivery_delay":0,"delivery_paused":false,"message_retention_period":345600}',NULL,'54d4c008b62f83b3d866ae0bf5c58eca',1795969089752,'{"batch_size":5,"max_retries":100,"retry_delay":0,"visibility_timeout_ms":30000,"dead_letter_queue":"hpc-jobs-dlq"}');
INSERT INTO queues VALUES(2,'d713e4dce3b2dbcb5101be97ffb11472','hpc-results',1795969089752,1795969089752,'{"delivery_delay":0,"delivery_paused":false,"message_retention_period":345600}',NULL,'1eca83f723f6be0f2fef24a0be4e151c',1795969089752,'{"batch_size":5,"max_retries":100,"retry_delay":0,"visibility_timeout_ms":30000,"dead_letter_queue":null}');
INSERT INTO queues VALUES(3,'2798fefa6becf28c51ea5c8351b8ba2d','hpc-jobs-dlq',1795969089752,1795969089752,'{"delivery_delay":0,"delivery_paused":false,"message_retention_period":345600}',NULL,NULL,NULL,NULL);
CREATE TABLE messages (
    seq          INTEGER PRIMARY KEY,
    queue        INTEGER NOT NULL,
    id           BLOB NOT NULL,
    bytes        INTEGER NOT NULL,
    published_ms INTEGER NOT NULL,
    arrived_ms   INTEGER NOT NULL,
    visible_ms   INTEGER NOT NULL,
    leased       INTEGER NOT NULL,
    attempts     INTEGER NOT NULL
) STRICT;
INSERT INTO messages VALUES(1,1,X'1e34c98951f14e2e9a8e30b84039cb35',125,1795969091799,1795969091799,1795969712126,1,1);
INSERT INTO messages VALUES(2,1,X'a29ad49a823b9b2383243b5839b4ff7c',126,1795969091822,1795969091822,1795969091822,0,0);
INSERT INTO messages VALUES(3,1,X'296dcc56aed33a281d609175581c3af9',125,1795969091852,1795969091852,1795969091852,0,0);
INSERT INTO messages VALUES(4,2,X'b224167c0990bfc4a8c9c0fd6ffd7a37',14,1795969112177,1795969112177,1795969112177,0,0);
CREATE TABLE bodies (
    seq          INTEGER PRIMARY KEY,
    content_type TEXT NOT NULL,
    source       TEXT NOT NULL,
    body         BLOB NOT NULL
) STRICT;
INSERT INTO bodies VALUES(1,'text','worker',X'7b2276223a312c226a6f625f6964223a2263636266613033302d613266662d343434362d396230302d383736373334623063353764222c227461736b223a226563686f222c22696e707574223a226669727374222c22637265617465645f6174223a22323032362d31312d32395431363a31383a31312e3739355a227d');
INSERT INTO bodies VALUES(2,'text','worker',X'7b2276223a312c226a6f625f6964223a2238303133646138612d363065342d343532652d396634332d326361386261366261393662222c227461736b223a226563686f222c22696e707574223a227365636f6e64222c22637265617465645f6174223a22323032362d31312d32395431363a31383a31312e3832325a227d');
INSERT INTO bodies VALUES(3,'text','worker',X'7b2276223a312c226a6f625f6964223a2232303931323536622d376663622d343166372d626265382d303161393133656465633733222c227461736b223a226563686f222c22696e707574223a227468697264222c22637265617465645f6174223a22323032362d31312d32395431363a31383a31312e3835315a227d');
INSERT INTO bodies VALUES(4,'json','http',X'7b2261223a5b312c22c3a9225d7d');
PRAGMA user_version = 1;
