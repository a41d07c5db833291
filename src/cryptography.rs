//! What TLS computes with.
//!
//! It is `graviola`'s: the arithmetic in assembly that is proved correct (s2n-bignum), the rest in intrinsics,
//! all of it inside Rust source, so that no C compiler and no cmake is needed. It takes x86-64 with AES, AVX2 and ADX
//! (2015 and later, but not Intel's smallest), or 64-bit ARM with AES, PMULL and SHA-2 (every Jetson).

use std::sync::Arc;

use tokio_rustls::rustls::crypto::CryptoProvider;

/// Why there is no [`provider`].
pub(crate) const LACKING: &str = "this processor lacks AES, AVX2 or ADX";

/// The cryptography of every TLS connection; `None` where the processor lacks what it asks for.
pub(crate) fn provider() -> Option<Arc<CryptoProvider>> {
    processor_has_what_it_takes().then(|| Arc::new(rustls_graviola::default_provider()))
}

/// What `graviola` asks for; it would panic in the first handshake.
fn processor_has_what_it_takes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::is_x86_feature_detected!("adx")
        && std::is_x86_feature_detected!("aes")
        && std::is_x86_feature_detected!("avx2")
        && std::is_x86_feature_detected!("bmi1")
        && std::is_x86_feature_detected!("bmi2")
        && std::is_x86_feature_detected!("pclmulqdq")
        && std::is_x86_feature_detected!("ssse3");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull")
        && std::arch::is_aarch64_feature_detected!("sha2");
}
