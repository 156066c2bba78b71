pub(crate) const CHECKS: &[netbcc_tests::kernel::Check] = &[];
