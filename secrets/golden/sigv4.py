"""Signs a request to KMS with botocore, AWS's own library: an oracle.

    pip install botocore && python3 sigv4.py

The two signatures are of credentials without and with a session token.
"""
import datetime
import json
import pathlib
from unittest import mock

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
KEYS = ("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")


def signed(body, token):
    request = AWSRequest(
        method="POST",
        url="https://kms.eu-west-1.amazonaws.com/",
        data=body,
        headers={"content-type": "application/x-amz-json-1.1", "x-amz-target": "TrentService.Decrypt"},
    )
    with mock.patch("botocore.auth.get_current_datetime", lambda remove_tzinfo=True: NOW.replace(tzinfo=None)):
        SigV4Auth(Credentials(*KEYS, token), "kms", "eu-west-1").add_auth(request)
    return {name.lower(): value for name, value in request.headers.items() if name.lower() in WANTED}


WANTED = {"authorization", "x-amz-date", "x-amz-security-token"}
folder = pathlib.Path(__file__).parent
body = '{"KeyId":"k","Recipient":{"AttestationDocument":"ZA=="}}'
vectors = [{"body": body, "headers": signed(body, token)} for token in (None, "a/session+token==")]
(folder / "sigv4.json").write_text(json.dumps(vectors, indent=2) + "\n")
