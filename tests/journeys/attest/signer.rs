//! Documents that a stand-in for AWS signed, as QEMU's NSM has it done.

use super::{Case, NONCE, register};
use pki::{Minted, Plan, Signer, cbor};
use std::time::{SystemTime, UNIX_EPOCH};

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn a_document_of_the_signer_is_trusted_below_its_root_alone() {
    let directory = tempfile::tempdir().unwrap();
    let signer = Signer::open(directory.path()).unwrap();
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mut unsigned = Plan::unsigned();
    unsigned.set("timestamp", cbor(|e| e.u64(since.as_secs() * 1000)));
    let case = Case::new(&Minted {
        document: signer.sign(&unsigned.mint().document).unwrap(),
        root: signer.root_der().to_vec(),
    });
    let root = directory.path().join("root.pem");
    let root = root.to_str().unwrap();
    let pcr = register(0, 1);
    let verify = ["verify", "document", "--pcr", &pcr, "--nonce", NONCE];

    let trusted = case.run(&[&verify[..], &["--root", root]].concat());
    assert_eq!(trusted.code, 0, "{trusted:?}");
    trusted.prints("\nTRUSTED: i-0123456789abcdef0-enc");
    trusted.prints("is trusted instead of AWS's root");
    let rejected = case.run(&verify);
    assert_eq!(rejected.code, 1, "{rejected:?}");
    rejected.prints("signature      FAILED");
}
