import Foundation
import SquintFile
import SquintMedia
import Testing

/// What tools/fixtures/sounds.py writes.
private let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
  .appendingPathComponent("Fixtures/sounds")

private func path(_ name: String) -> String { folder.appendingPathComponent(name).path }

private func open(_ path: String) throws(SquintError) -> MediaFile { try MediaFile(path: path, noun: "sound") }

/// Whisper's frames, padded to so many samples, in units of 50 frames.
private func processor(
  mels: Int = 80, unit: Int = 50, least: Int = 1, pad: Int? = nil, most: Int? = nil, keeps: Bool = false
) -> SoundProcessor {
  SoundProcessor(
    mel: MelSpectrogram(rate: 16_000, fft: 400, hop: 160, mels: mels), unit: keeps ? pad! / 160 : unit,
    leastSamples: least, padSamples: pad, mostSamples: most, keepsPadding: keeps)
}

/// The numbers of all units, a few at a time.
private func numbers(_ processor: SoundProcessor, _ file: MediaFile, together: Int = 1) throws(SquintError) -> [Float] {
  guard let units = try processor.units(of: file, while: { true }) else { return [] }
  let reader = try units.reader()
  var numbers: [Float] = []
  for run in units.layout.runs {
    for first in stride(from: 0, to: run.count, by: together) {
      _ = try reader.next(min(together, run.count - first), of: run, while: { true }) { (bytes) throws(SquintError) in
        numbers += processor.numbers(of: bytes, shape: run.shape).numbers
        return true
      }
    }
  }
  return numbers
}

private func numbers(_ processor: SoundProcessor, _ path: String) throws(SquintError) -> [Float] {
  try numbers(processor, open(path))
}

/// A WAV file of f32 in a folder of its own, which is gone when this is.
private final class TemporaryWAV {
  let path: String
  private let folder: URL

  init(
    _ samples: [Float], rate: UInt32 = 16_000, channels: UInt16 = 1, dataBytes: UInt32? = nil,
    name: String = "sound.wav"
  ) throws {
    folder = FileManager.default.temporaryDirectory.appendingPathComponent("squint-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    path = folder.appendingPathComponent(name).path
    try Self.bytes(samples, rate: rate, channels: channels, dataBytes: dataBytes).write(to: URL(fileURLWithPath: path))
  }

  deinit { try? FileManager.default.removeItem(at: folder) }

  static func bytes(
    _ samples: [Float], rate: UInt32 = 16_000, channels: UInt16 = 1, dataBytes: UInt32? = nil
  ) -> Data {
    let size = dataBytes ?? UInt32(4 * samples.count)
    var data = Data()
    func put(_ number: some FixedWidthInteger) {
      withUnsafeBytes(of: number.littleEndian) { data.append(contentsOf: $0) }
    }
    data.append(contentsOf: "RIFF".utf8)
    put(size == .max ? size : size &+ 36)
    data.append(contentsOf: "WAVEfmt ".utf8)
    put(UInt32(16))
    put(UInt16(3))
    put(channels)
    put(rate)
    put(rate &* UInt32(channels) &* 4)
    put(channels &* 4)
    put(UInt16(32))
    data.append(contentsOf: "data".utf8)
    put(size)
    for sample in samples { put(sample.bitPattern) }
    return data
  }
}

/// A second of a tone that rises.
private let chirp = (0..<16_000).map { Float(0.5 * sin(0.02 * Double($0) + 1e-5 * Double($0 * $0))) }

@Suite struct SoundTests {
  struct Case: Decodable, Sendable, CustomTestStringConvertible {
    let file: String
    let mels: Int
    let pad: Int
    let least: Int
    let most: Int
    let keeps: Bool
    let frames: Int
    let valid: Int
    let mean: Double
    let chosen: [Int]

    var testDescription: String { "\(file), \(mels) mels, padded to \(pad)" }
    var processor: SoundProcessor {
      SquintMediaTests.processor(
        mels: mels, least: least, pad: pad > 0 ? pad : nil, most: most > 0 ? most : nil, keeps: keeps)
    }

    static let all: [Case] = {
      let data = try? Data(contentsOf: folder.appendingPathComponent("sounds.json"))
      return (try? JSONDecoder().decode([Case].self, from: data ?? Data())) ?? []
    }()
    static let stored = (try? [UInt8](Data(contentsOf: folder.appendingPathComponent("frames.bin")))) ?? []
    /// Where the frames that were chosen of a case begin.
    static let offsets = all.reduce(into: [0]) { $0.append($0.last! + 2 * $1.chosen.count * $1.mels) }
  }

  /// Every format, rate and padding: librosa's and transformers' frames.
  @Test(arguments: Case.all.indices) func frames(_ index: Int) throws {
    let sound = Case.all[index]
    let processor = sound.processor
    let layout = try processor.cost(of: open(path(sound.file))).layout
    if sound.keeps {
      #expect(layout.runs.map(\.shape) == [[sound.frames, sound.mels, sound.valid]])
    } else {
      #expect(sound.frames == sound.valid)
      #expect(layout.count == (sound.frames + 49) / 50)
      #expect(layout.runs.allSatisfy { $0.unitBytes == 4 * $0.shape[0] * $0.shape[1] && $0.shape[1] == sound.mels })
    }
    let found = try numbers(processor, path(sound.file))
    try #require(found.count == sound.frames * sound.mels)
    let mean = found.reduce(0) { $0 + Double($1) } / Double(found.count)
    #expect(abs(mean - sound.mean) < 2e-5)
    var worst = 0.0
    var place = Case.offsets[index]
    for frame in sound.chosen {
      for mel in 0..<sound.mels {
        let expected = Int16(bitPattern: UInt16(Case.stored[place]) | UInt16(Case.stored[place + 1]) << 8)
        worst = max(worst, abs(Double(found[frame * sound.mels + mel]) - Double(expected) / 16_000))
        place += 2
      }
    }
    // The reference is rounded to 1/32,000.
    #expect(worst < 1.3e-4, "\(worst)")
  }

  @Test func allCasesAreThere() { #expect(Case.all.count == 17 && Case.stored.count == Case.offsets.last) }

  /// Units hold what a single one does, however many are read at a time.
  @Test func unitsAreParts() throws {
    let file = try open(path("speech-8000.flac"))
    let whole = try numbers(processor(unit: 1 << 20), file)
    #expect(!whole.isEmpty)
    #expect(try numbers(processor(unit: 7), file) == whole)
    #expect(try numbers(processor(unit: 7), file, together: 5) == whole)
  }

  @Test func channelsAreAveraged() throws {
    let mono = try TemporaryWAV(chirp)
    let stereo = try TemporaryWAV(chirp.flatMap { [1.5 * $0, 0.5 * $0] }, channels: 2)
    #expect(try numbers(processor(), mono.path) == numbers(processor(), stereo.path))
  }

  @Test func pipesAreRead() throws {
    let wav = try TemporaryWAV(chirp)
    let expected = try numbers(processor(), wav.path)
    let pipe = Pipe()
    // ffmpeg does not know a length when it writes into a pipe.
    let bytes = TemporaryWAV.bytes(Array(chirp[..<15_000]), dataBytes: .max)
    try pipe.fileHandleForWriting.write(contentsOf: bytes)
    try pipe.fileHandleForWriting.close()
    let file = try open("/dev/fd/\(pipe.fileHandleForReading.fileDescriptor)")
    #expect(file.heldBytes == bytes.count)
    let found = try numbers(processor(), file)
    // Reflected at another end: the last frames differ.
    #expect(found.count == 93 * 80 && found[..<(92 * 80)].elementsEqual(expected[..<(92 * 80)]))
    #expect(try processor().cost(of: file).notes.isEmpty)
  }

  // MARK: What the user is told

  @Test func longSoundsAreCutAndSaid() throws {
    let wav = try TemporaryWAV(chirp)
    let cut = processor(most: 8_000)
    #expect(
      try cut.cost(of: open(wav.path)).notes
        == ["of 1.0 s the model hears the first 0.5 s; cut it in parts to ask about the rest"])
    let found = try numbers(cut, wav.path)
    let half = try TemporaryWAV(Array(chirp[..<8_000]))
    #expect(try found == numbers(processor(), half.path))
    #expect(try processor(most: 16_000).cost(of: open(wav.path)).notes.isEmpty)
  }

  @Test func oggWithoutItsSoundIsTruncated() throws {
    let wav = try TemporaryWAV([0])
    try Data(contentsOf: URL(fileURLWithPath: path("speech-48000.opus"))).prefix(60)
      .write(to: URL(fileURLWithPath: wav.path))
    let error = caught { _ = try processor().cost(of: open(wav.path)) }
    #expect(error?.kind == .badData && error?.description.contains("the file is truncated") == true)
  }

  @Test func truncatedSoundsAreReadAndSaid() throws {
    let wav = try TemporaryWAV(chirp, dataBytes: 100_000)
    #expect(try processor().cost(of: open(wav.path)).notes == ["the file ends before its header says, after 1.0 s"])
    #expect(try numbers(processor(), wav.path).count == 100 * 80)
    for name in ["speech-8000.flac", "speech-22050.mp3", "speech-48000.opus", "music-32000.aiff"] {
      let whole = try Data(contentsOf: URL(fileURLWithPath: path(name)))
      #expect(try processor().cost(of: open(path(name))).notes.isEmpty)
      let file = try TemporaryWAV([], name: name)
      try whole[..<(whole.count * 7 / 10)].write(to: URL(fileURLWithPath: file.path))
      guard let cost = try? processor().cost(of: open(file.path)) else {
        // An Opus page is a second: it has none but a part of one.
        #expect(name == "speech-48000.opus")
        continue
      }
      #expect(cost.notes.first?.hasPrefix("the file ends before its header says") == true, "\(name)")
      #expect(try numbers(processor(), file.path).count * 4 == cost.layout.byteCount)
    }
  }

  @Test func refusals() throws {
    func message(_ samples: [Float], rate: UInt32 = 16_000, channels: UInt16 = 1, pad: Int? = nil) throws -> String {
      let wav = try TemporaryWAV(samples, rate: rate, channels: channels)
      do throws(SquintError) {
        _ = try numbers(processor(pad: pad), wav.path)
      } catch {
        #expect(error.kind == .badData && error.description.hasPrefix(wav.path) && !error.description.contains("\n"))
        return error.description
      }
      return "none"
    }
    #expect(try message([]).contains("no samples"))
    #expect(try message([0.5]).contains("too short: 1 sample, less than a frame of 10 ms"))
    #expect(try message([0.5], pad: 480_000) == "none")
    #expect(try message(chirp + [.nan]).contains("a sample at 1.0 s is infinite or not a number"))
    #expect(try message(chirp + [-.infinity, 1], channels: 2).contains("infinite"))
    #expect(try message(chirp.map { $0 * 1e38 }).contains("too large"))
    #expect(try message(chirp, rate: 999).contains("999 samples a second; 1,000 to 768,000"))
    #expect(try message(chirp, rate: 768_001).contains("768,001"))
    #expect(try message(chirp, rate: 768_000) == "none")
    #expect(try message([Float](repeating: 0, count: 6_500), channels: 65).contains("65 channels"))
    #expect(try message([Float](repeating: 0, count: 64_000), channels: 64) == "none")
    for (name, words) in [("sounds.json", "a text"), ("../pictures/jpeg-baseline-420.jpg", "an image")] {
      let error = caught { _ = try processor().cost(of: open(path(name))) }
      #expect(error.map { $0.description.contains(words) } == true)
    }
  }

  /// Whatever is wrong with a file is an error, and nothing else.
  @Test func damagedFiles() throws {
    var random = SystemRandomNumberGenerator()
    for name in ["speech-8000.flac", "speech-16000.ogg", "speech-22050.mp3", "speech-48000.opus", "speech-24000.wav"] {
      let whole = try [UInt8](Data(contentsOf: URL(fileURLWithPath: path(name))))
      let file = try TemporaryWAV([], name: name)
      for turn in 0..<6 {
        var bytes = whole
        for _ in 0...turn % 5 {
          // Heads more often than what they tell of. The first four bytes stay: other decoders are another program's.
          let place = Int.random(in: 4..<(turn % 2 == 0 ? 200 : bytes.count), using: &random)
          bytes[place] = UInt8.random(in: 0...255, using: &random)
        }
        try Data(bytes).write(to: URL(fileURLWithPath: file.path))
        do throws(SquintError) {
          let media = try open(file.path)
          let cost = try processor(most: 160_000).cost(of: media)
          let found = try numbers(processor(most: 160_000), media)
          #expect(found.count * 4 == cost.layout.byteCount && found.allSatisfy(\.isFinite))
        } catch {
          #expect(error.kind == .badData, "\(error)")
        }
      }
    }
  }

  // MARK: ffmpeg

  @Test(.enabled(if: ffmpeg != nil)) func ffmpegReadsTheRest() throws {
    let wav = try TemporaryWAV(chirp.map { ($0 * 32_768).rounded() / 32_768 })
    let expected = try numbers(processor(), wav.path)
    let video = wav.path + ".mkv"
    try run(["-f", "lavfi", "-i", "testsrc=size=32x32:rate=5:duration=1", "-i", wav.path, "-c:a", "pcm_s16le", video])
    let file = try MediaFile(path: video, noun: "video", takesFolders: true)
    #expect(try file.hasSound())
    #expect(try numbers(processor(), file) == expected)
    let silent = wav.path + ".mp4"
    try run(["-i", video, "-an", silent])
    #expect(try !MediaFile(path: silent, noun: "video", takesFolders: true).hasSound())
    let error = caught { _ = try processor().cost(of: open(silent)) }
    #expect(error?.description.contains("there is no sound in it") == true)
    let coded = wav.path + ".m4a"
    try run(["-i", wav.path, coded])
    #expect(try numbers(processor(), coded).count >= 100 * 80)
  }

  private func run(_ arguments: [String]) throws {
    let process = Process()
    process.executableURL = ffmpeg.map { URL(fileURLWithPath: $0) }
    process.arguments = ["-v", "error", "-nostdin", "-y"] + arguments
    try process.run()
    process.waitUntilExit()
    try #require(process.terminationStatus == 0)
  }

  @Test func imagesHaveNoSound() throws {
    #expect(try !MediaFile(path: path("../videos"), noun: "video", takesFolders: true).hasSound())
    #expect(try open(path("speech-22050.mp3")).hasSound())
  }

  // MARK: Plans and keys

  @Test func plansAreForTheUsualSound() {
    let costs = processor(unit: 200, pad: 4_800_000).costs()
    #expect(costs.count == 1 && costs[0].heldUnitBytes == 0)
    #expect(costs[0].layout.runs.map(\.shape) == [[200, 80]] && costs[0].layout.count == 15)
    #expect(processor().costs().map(\.layout.count) == [60])
    #expect(processor(most: 1 << 40).costs().map(\.layout.count) == [60])
    #expect(processor(most: 40_000).costs().map(\.layout.count) == [5])
    #expect(processor(pad: 480_000, keeps: true).costs().map(\.layout.runs[0].shape) == [[3000, 80, 3000]])
  }

  @Test func metadata() throws {
    func metadata(_ changes: [String: MetadataValue] = [:]) -> Metadata {
      var entries: [String: MetadataValue] = [
        "features": .string("log_mel"), "rate": .int(16_000), "fft": .int(400), "hop": .int(160), "mels": .int(80),
        "unit": .int(3000), "pad_samples": .int(480_000), "keeps_padding": .bool(true),
      ]
      for (key, value) in changes { entries[key] = value }
      var metadata = Metadata()
      for key in entries.keys.sorted() { metadata["audio.\(key)"] = entries[key] }
      return metadata
    }
    #expect(try SoundProcessor(metadata()) == processor(pad: 480_000, keeps: true))
    let bad: [[String: MetadataValue]] = [
      ["features": .string("mfcc")], ["rate": .int(0)], ["fft": .int(401)], ["fft": .int(1 << 40)], ["hop": .int(401)],
      ["hop": .int(0)], ["mels": .int(0)], ["mels": .int(1 << 20)], ["unit": .int(2999)], ["unit": .int(-1)],
      ["pad_samples": .int(0)], ["most_samples": .int(1)], ["most_samples": .int(500_000)],
      ["low_hertz": .float(-1)], ["high_hertz": .float(8001)], ["high_hertz": .float(.nan)],
      ["low_hertz": .float(8000)], ["least_samples": .int(.max)],
      ["least_samples": .int(1 << 24 + 1), "pad_samples": .int(1 << 26), "keeps_padding": .bool(false)],
      ["pad_samples": .int(1 << 32 + 1), "keeps_padding": .bool(false)],
      ["fft": .int(400), "hop": .int(24), "unit": .int(20_000)],
      // So many frames of a second.
      ["hop": .int(1), "fft": .int(16), "unit": .int(1 << 20), "pad_samples": .int(1 << 20)],
    ]
    for changes in bad {
      #expect(throws: SquintError.self, "\(changes)") { try SoundProcessor(metadata(changes)) }
    }
  }

  @Test func limitsAreRefused() throws {
    let file = try open(path("speech-8000.flac"))
    for call in [
      { try processor().limited(toUnits: 1, of: file) }, { try processor().limited(toPixels: 1) },
      { try processor().resizing(toSide: 1) },
    ] {
      #expect(throws: SquintError.self) { try call() }
    }
  }
}

private let ffmpeg = ProcessInfo.processInfo.environment["PATH"]?.split(separator: ":").map { "\($0)/ffmpeg" }
  .first { FileManager.default.isExecutableFile(atPath: $0) }
