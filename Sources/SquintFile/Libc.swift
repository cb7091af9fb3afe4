#if canImport(Glibc)
  @_exported import Glibc
#elseif canImport(Musl)
  @_exported import Musl
#elseif canImport(Darwin)
  @_exported import Darwin
#endif

/// The text of the C library's error number `code`, such as "No such file or directory".
package func systemMessage(_ code: Int32) -> String { String(cString: strerror(code)) }
