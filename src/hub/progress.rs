//! What a pull tells while it works.

/// Is told how a pull gets on; from several threads at once.
pub trait Progress: Sync {
    /// A file of `bytes` bytes is begun.
    fn begin(&self, file: &str, bytes: u64) {
        let _ = (file, bytes);
    }

    /// So much of a file is there, counted from its beginning. It may go back, where a file has to be begun anew.
    fn reach(&self, file: &str, bytes: u64) {
        let _ = (file, bytes);
    }

    /// A file has to wait, and why.
    fn wait(&self, file: &str, why: &str) {
        let _ = (file, why);
    }

    /// A file is there, whole and checked.
    fn end(&self, file: &str) {
        let _ = file;
    }
}

/// Tells nobody.
impl Progress for () {}
