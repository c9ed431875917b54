//! NVIDIA's own plugins: operators that the ONNX parser takes for a plugin's, such as RoiAlign, and engines that have them.

use std::ffi::{CStr, c_char, c_void};
use std::path::Path;

use trtx::trtx_sys;

use crate::logger::{Listener, Severity};
use crate::{Error, Result};

/// Registers the plugins of a library, once in a process; `listener` is told what they say, until it ends.
///
/// # Errors
/// A library that does not load, or does not register.
pub fn register(path: &Path, listener: Listener) -> Result<()> {
    let broken = |reason: String| Error::Library { what: path.display().to_string(), reason };
    // SAFETY: the library's initialisers are those of TensorRT's plugins, which the user put there.
    let library = unsafe { libloading::Library::new(path) };
    let library = library.map_err(|error| broken(error.to_string()))?;
    type Register = extern "C" fn(*mut c_void, *const c_char) -> bool;
    // SAFETY: the symbol has this type in all versions (`NvInferPlugin.h`).
    let register = unsafe { library.get::<Register>(b"initLibNvInferPlugins\0") };
    let register = *register.map_err(|error| broken(error.to_string()))?;
    // They keep the logger's address.
    let listener = Box::into_raw(Box::new(listener));
    // SAFETY: the listener lives until the process ends, and `tell` takes it for what it is.
    let bridge = unsafe { trtx_sys::create_rust_logger_bridge(tell, listener.cast()) };
    if bridge.is_null() {
        return Err(broken("no logger can be made".to_owned()));
    }
    // SAFETY: not null, and never destroyed.
    let logger = unsafe { trtx_sys::get_logger_interface(bridge) };
    let registered = register(logger, c"".as_ptr());
    // It stays loaded: the registry points into it.
    std::mem::forget(library);
    if registered { Ok(()) } else { Err(broken("registers no plugins".to_owned())) }
}

extern "C" fn tell(listener: *mut c_void, severity: i32, message: *const c_char) {
    if listener.is_null() || message.is_null() {
        return;
    }
    // SAFETY: `register` gave this listener, and the message is a C string for the time of the call.
    let (listener, message) = unsafe { (&*listener.cast::<Listener>(), CStr::from_ptr(message)) };
    let severity = match severity {
        0 => Severity::InternalError,
        1 => Severity::Error,
        2 => Severity::Warning,
        3 => Severity::Info,
        _ => Severity::Verbose,
    };
    listener(severity, &message.to_string_lossy());
}
