pub(crate) const ANY: &[netbcc_tests::kernel::Check] = &[];
pub(crate) const CHECKS: &[netbcc_tests::kernel::Check] = &[];
