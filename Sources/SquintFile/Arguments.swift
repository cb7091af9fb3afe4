import CSystem

/// The arguments of this program, behind its name, each as the name of a file is (`String(fileName:)`): no byte is lost.
///
/// - Throws: `internalError` where they cannot be read.
package func programArguments() throws(SquintError) -> [String] {
  guard var argument = squint_arguments() else {
    // Of all systems those whose C library does not hand them over; there they are read from /proc.
    let arguments = CommandLine.arguments
    guard !arguments.isEmpty else {
      throw SquintError(.internalError, "the arguments of this program cannot be read; mount /proc")
    }
    return Array(arguments.dropFirst())
  }
  var arguments: [String] = []
  while let text = argument.pointee {
    arguments.append(String(fileName: text))
    argument += 1
  }
  return Array(arguments.dropFirst())
}

/// The path by which the system started this program; nil where it does not say.
package var programPath: String? { squint_program_path().map { String(fileName: $0) } }
