/// Which Squint this is.
package enum SquintVersion {
  /// The version of the programs and the library, as CHANGELOG.md has it.
  package static let program = "0.3.0"
  /// The version of the file format that is read and written.
  package static var format: UInt32 { FileHeader.version }
}
