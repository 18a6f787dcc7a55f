"""boto3, the client of AWS, against the store of `local-edge`: whatever it does by itself (checksums after the body,
chunks, parts, retries) has to work as with any store. Says `ok` at the end, and fails with a trace otherwise."""

import base64
import hashlib
import io
import os
import sys
import urllib.request

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

endpoint, key_id, key = sys.argv[1], os.environ["FILES_ACCESS_KEY_ID"], os.environ["FILES_SECRET_ACCESS_KEY"]
MIB = 1024 * 1024


def client(secret=key, **settings):
    settings = {"signature_version": "s3v4", "s3": {"addressing_style": "path"}, "retries": {"total_max_attempts": 1}} | settings
    return boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=key_id, aws_secret_access_key=secret,
        config=Config(**settings),
    )


def refused(code, call):
    try:
        call()
    except ClientError as error:
        assert error.response["Error"]["Code"] == code, error.response
        return
    raise AssertionError(f"{code} was expected")


s3 = client()
small = os.urandom(100_000)
bucket = {"Bucket": "files"}
s3.head_bucket(**bucket)
assert [b["Name"] for b in s3.list_buckets()["Buckets"]] == ["files"]
refused("NoSuchBucket", lambda: s3.list_objects_v2(Bucket="other"))
odd = "a b/ü/%41+&?=#\"'/\u4e2d"
for name, settings in [
    ("plain", {}),
    (odd, {}),
    ("sha256", {"ChecksumAlgorithm": "SHA256"}),
    ("crc32", {"ChecksumAlgorithm": "CRC32"}),
]:
    put = s3.put_object(**bucket, Key=name, Body=small, ContentType="x/y", Metadata={"mine": "1"}, **settings)
    got = s3.get_object(**bucket, Key=name)
    assert got["Body"].read() == small and got["ETag"] == put["ETag"], name
    assert (got["ContentType"], got["Metadata"]) == ("x/y", {"mine": "1"}), got
assert s3.get_object(**bucket, Key="plain", Range="bytes=-5")["Body"].read() == small[-5:]
refused("InvalidRange", lambda: s3.get_object(**bucket, Key="plain", Range="bytes=100000-"))
refused("NoSuchKey", lambda: s3.get_object(**bucket, Key="none"))
refused("404", lambda: s3.head_object(**bucket, Key="none"))
refused("PreconditionFailed", lambda: s3.get_object(**bucket, Key="plain", IfMatch='"x"'))
refused("SignatureDoesNotMatch", lambda: client("other").get_object(**bucket, Key="plain"))
wrong = hashlib.sha256(b"other").digest()
refused("BadDigest", lambda: s3.put_object(**bucket, Key="bad", Body=small, ChecksumSHA256=base64.b64encode(wrong).decode()))
refused("BadDigest", lambda: s3.put_object(**bucket, Key="bad", Body=small, ContentMD5=base64.b64encode(wrong[:16]).decode()))
refused("NoSuchKey", lambda: s3.get_object(**bucket, Key="bad"))

large = os.urandom(20 * MIB + 7)
config = TransferConfig(multipart_threshold=MIB, multipart_chunksize=5 * MIB, max_concurrency=4)
s3.upload_fileobj(io.BytesIO(large), "files", "large", Config=config)
into = io.BytesIO()
s3.download_fileobj("files", "large", into, Config=config)
assert into.getvalue() == large
upload = s3.create_multipart_upload(**bucket, Key="parts")["UploadId"]
named = {"Key": "parts", "UploadId": upload}
etags = [s3.upload_part(**bucket, **named, PartNumber=n, Body=large[: 5 * MIB])["ETag"] for n in (1, 2, 2)]
listed = s3.list_parts(**bucket, **named, MaxParts=1)
assert [(p["PartNumber"], p["Size"]) for p in listed["Parts"]] == [(1, 5 * MIB)] and listed["IsTruncated"], listed
assert [u["UploadId"] for u in s3.list_multipart_uploads(**bucket)["Uploads"]] == [upload]
parts = lambda *of: {"MultipartUpload": {"Parts": [{"PartNumber": n, "ETag": e} for n, e in of]}}
complete = lambda *of: s3.complete_multipart_upload(**bucket, **named, **parts(*of))
refused("InvalidPart", lambda: complete((1, etags[0]), (3, etags[0])))
refused("InvalidPartOrder", lambda: complete((2, etags[1]), (1, etags[0])))
complete((1, etags[0]), (2, etags[2]))
assert s3.head_object(**bucket, Key="parts")["ContentLength"] == 10 * MIB
refused("NoSuchUpload", lambda: complete((1, etags[0])))
upload = s3.create_multipart_upload(**bucket, Key="parts")["UploadId"]
s3.abort_multipart_upload(**bucket, Key="parts", UploadId=upload)
refused("NoSuchUpload", lambda: s3.list_parts(**bucket, Key="parts", UploadId=upload))

for number in range(25):
    s3.put_object(**bucket, Key=f"list/{number // 10}/{number:02}", Body=b"x")
pages = s3.get_paginator("list_objects_v2").paginate(**bucket, Prefix="list/", PaginationConfig={"PageSize": 7})
assert [o["Key"] for page in pages for o in page["Contents"]] == [f"list/{n // 10}/{n:02}" for n in range(25)]
pages = list(s3.get_paginator("list_objects_v2").paginate(**bucket, Delimiter="/", PaginationConfig={"PageSize": 2}))
folders = [p["Prefix"] for page in pages for p in page.get("CommonPrefixes", [])]
names = [o["Key"] for page in pages for o in page.get("Contents", [])]
assert folders == ["a b/", "list/"], folders
assert names == ["crc32", "large", "parts", "plain", "sha256"], names
assert len(s3.list_objects(**bucket, Prefix="list/", MaxKeys=10)["Contents"]) == 10
assert s3.list_objects_v2(**bucket, Prefix="a b/")["Contents"][0]["Key"] == odd
deleted = s3.delete_objects(**bucket, Delete={"Objects": [{"Key": "list/0/00"}, {"Key": odd}]})["Deleted"]
assert [d["Key"] for d in deleted] == ["list/0/00", odd], deleted
s3.delete_object(**bucket, Key="plain")
refused("NoSuchKey", lambda: s3.get_object(**bucket, Key="plain"))

url = s3.generate_presigned_url("put_object", Params=bucket | {"Key": "signed"}, ExpiresIn=60)
urllib.request.urlopen(urllib.request.Request(url, data=small, method="PUT", headers={"content-type": ""})).read()
url = s3.generate_presigned_url("get_object", Params=bucket | {"Key": "signed", "ResponseContentType": "text/plain"})
with urllib.request.urlopen(url) as answer:
    assert answer.read() == small and answer.headers["content-type"] == "text/plain"
print("ok")
