import SquintFile

extension MediaFile {
  /// The file with the sound of the video in this one: of a folder of frames the one that lies beside them, of what ffmpeg reads the same
  /// file; nil where there is none. Animations and Y4M have none.
  ///
  /// - Throws: `usage` where a folder has several; else as `hasSound`.
  package func soundOfVideo() throws(SquintError) -> MediaFile? {
    guard isFolder else { return try hasSound() ? self : nil }
    let sounds = try fileNames(inFolder: path).filter(Self.isSound)
    guard let name = sounds.first else { return nil }
    guard sounds.count == 1 else {
      throw SquintError(
        .usage,
        "\(path): there are \(sounds.count) sounds beside the frames (\(sounds[0].withVisibleBytes), \(sounds[1].withVisibleBytes), …); leave one "
          + "there, or --no-video-sound hears none")
    }
    return try MediaFile(path: path.hasSuffix("/") ? path + name : "\(path)/\(name)", noun: "sound")
  }

  /// What the names of sounds end in.
  package static let soundExtensions = [
    "wav", "flac", "ogg", "oga", "opus", "mp3", "aiff", "aif", "au", "m4a", "aac",
  ]

  private static func isSound(_ name: String) -> Bool {
    guard !name.hasPrefix("."), let dot = name.lastIndex(of: ".") else { return false }
    return soundExtensions.contains(name[name.index(after: dot)...].lowercased())
  }
}
