//! x
use std::net::IpAddr;
pub struct AddressClass(bool);
impl AddressClass { pub fn of(_: IpAddr) -> AddressClass { AddressClass(false) } pub fn is_internal(&self) -> bool { self.0 } }
