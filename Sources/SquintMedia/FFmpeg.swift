import SquintFile

/// The program ffmpeg, where it is installed: it decodes what we do not.
enum FFmpeg {
  /// nil where it is not in PATH.
  static var path: String? { ChildProcess.find("ffmpeg") }

  /// Where it is.
  ///
  /// - Parameter others: what needs no ffmpeg.
  static func path(for file: MediaFile, others: String) throws(SquintError) -> String {
    if let path { return path }
    throw SquintError(
      .noInput,
      "\(file.path): this needs the program ffmpeg, which is not in PATH; install it (apt install ffmpeg), or give \(others)"
    )
  }

  /// Starts it to read `file`, if that is of one of `formats`: what hostile files could name others with, such as playlists, is not
  /// among them.
  static func start(
    _ path: String, _ file: MediaFile, formats: String, _ arguments: [String]
  ) throws(SquintError) -> ChildProcess {
    // A file that cannot be opened again by its path is its stdin, which has a name that can be.
    let name = file.isReadOnce ? "file:/dev/fd/0" : "file:\(file.path)"
    do throws(SquintError) {
      return try ChildProcess(
        path,
        [
          "-v", "error", "-nostdin", "-hide_banner", "-threads", "2", "-protocol_whitelist", "file",
          "-format_whitelist", formats, "-i", name,
        ] + arguments, input: file.isReadOnce ? file.descriptor : nil)
    } catch {
      // The file cannot be read; nothing was written.
      throw SquintError(
        .noInput,
        "\(file.path): \(error.message); allow more files and processes (ulimit -n, -u), or end other programs")
    }
  }

  /// What is said where it gave up with `message`.
  static func failure(_ file: MediaFile, _ message: String) -> SquintError {
    // It begins with the file's name.
    let name = "file:\(file.path): "
    let reason = message.hasPrefix(name) ? String(message.dropFirst(name.count)) : message
    return file.error("ffmpeg does not understand it: \(reason); convert it, or copy it again")
  }
}
