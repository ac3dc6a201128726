//! What an open config leaves of the registers.

use super::{House, INWARD};
use serde_json::Value;

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn registers_of_the_spec_stay_open_and_all_others_are_locked() {
    let house = House::new("[attestation]\nusers = ['web']\nextend = [17, 30]");
    house.allow();
    let daemon = house.daemon(&[INWARD]);
    let (sealed, printed) = house.seal("TOKEN=x\n", 1);
    let created = house.create(&daemon, &sealed);
    assert_eq!(created.code, 0, "{created:?}");
    let attested = daemon.ctl(&["--json", "attestation", "orders"], "");
    let attested: Value = serde_json::from_str(&attested.stdout).unwrap();
    let pcrs = attested["pcrs"].as_object().unwrap();
    assert_eq!(pcrs["PCR16"], printed["pcr16"]);
    // A document shows what is locked.
    for register in 17..32 {
        let shown = pcrs.get(&format!("PCR{register}"));
        let zeros = Value::from("0".repeat(96));
        let expected = (![17, 30].contains(&register)).then_some(&zeros);
        assert_eq!(shown, expected, "PCR{register}");
    }
}
