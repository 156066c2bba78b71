//! What a traced function answered, for fexit programs.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::bpf_get_func_ret;
use aya_ebpf::programs::FExitContext;

/// The answer, of which a shorter type is the lower part; 0 where there is none.
///
/// Whether the helper succeeded is not asked, as it always does here: verifiers before 6.8 take the helper's 0 for the
/// answer as well where both are compared, and remove what is done with other answers.
#[inline(always)]
pub fn answer(ctx: &FExitContext) -> u64 {
    let mut answer = 0;
    // SAFETY: the context of this program, and a local to write to.
    unsafe { bpf_get_func_ret(ctx.as_ptr(), &raw mut answer) };
    answer
}
