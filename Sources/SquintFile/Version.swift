/// Which Squint this is.
public enum SquintVersion {
  /// The version of the programs and the library, as CHANGELOG.md has it.
  public static let program = "0.3.0"
  /// The version of the file format that is read and written.
  public static var format: UInt32 { FileHeader.version }
}
