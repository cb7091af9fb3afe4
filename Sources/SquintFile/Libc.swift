import CSystem

#if canImport(Glibc)
  @_exported import Glibc
#elseif canImport(Musl)
  @_exported import Musl
#elseif canImport(Darwin)
  @_exported import Darwin
#endif

/// The text of the C library's error number `code`, such as "No such file or directory".
package func systemMessage(_ code: Int32) -> String { String(cString: strerror(code)) }

/// Waits until `descriptor` has something to read, or has come to its end; false where `milliseconds` are over before.
package func waitForInput(_ descriptor: Int32, milliseconds: Int) -> Bool {
  let start = ContinuousClock.now
  while true {
    let left = milliseconds - Int((ContinuousClock.now - start) / .milliseconds(1))
    guard left > 0 else { return false }
    var event = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    if poll(&event, 1, Int32(left)) > 0 { return true }
  }
}

/// Lets this process have as many files open at a time as the system allows it.
package func allowMoreOpenFiles() { squint_allow_more_open_files() }
