import Foundation
import SquintFile
import SquintMedia
import Testing

/// What tools/fixtures/videos.py writes.
private let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
  .appendingPathComponent("Fixtures/videos")

private func path(_ name: String) -> String { folder.appendingPathComponent(name).path }

/// A processor that takes all frames, or so many, and makes them of this size.
private func processor(
  height: Int, width: Int, filter: ResamplingFilter = .bicubic, patch: Int = 1, least: Int = 1, most: Int = 1 << 20
) -> VideoProcessor {
  VideoProcessor(
    sampling: VideoSampling(rule: .even, least: least, most: most, temporalPatch: patch),
    sizing: .exact(ImageProcessor.Size(height: height, width: width)), filter: filter, mean: [0.5, 0.5, 0.5],
    std: [0.5, 0.5, 0.5])
}

/// The bytes of all units, a few at a time.
private func bytes(_ processor: VideoProcessor, _ path: String, together: Int = 1) throws(SquintError) -> [UInt8] {
  guard let units = try processor.units(of: MediaFile(path: path, noun: "video", takesFolders: true), while: { true })
  else { return [] }
  let reader = try units.reader()
  var bytes: [UInt8] = []
  for run in units.layout.runs {
    for first in stride(from: 0, to: run.count, by: together) {
      _ = try reader.next(min(together, run.count - first), of: run, while: { true }) { (part) throws(SquintError) in
        bytes += part
        return true
      }
    }
  }
  return bytes
}

@Suite struct VideoTests {
  struct Case: Decodable, Sendable, CustomTestStringConvertible {
    let file: String
    let frames: Int
    let height: Int
    let width: Int
    let offset: Int
    let rate: Double?
    let filter: String?

    var testDescription: String { "\(file) \(height) × \(width) \(filter ?? "")" }
    static let all: [Case] = {
      let data = try? Data(contentsOf: folder.appendingPathComponent("videos.json"))
      return (try? JSONDecoder().decode([Case].self, from: data ?? Data())) ?? []
    }()
    static let pixels = (try? [UInt8](Data(contentsOf: folder.appendingPathComponent("frames.bin")))) ?? []
  }

  /// Pillow's frames, exact colours of Y4M, torchvision's resize: to the bit.
  @Test(arguments: Case.all) func frames(_ video: Case) throws {
    let count = video.frames * video.height * video.width * 3
    let expected = Array(Case.pixels[video.offset..<video.offset + count])
    let filter = video.filter.flatMap(ResamplingFilter.init) ?? .bicubic
    let processor = processor(height: video.height, width: video.width, filter: filter)
    #expect(try bytes(processor, path(video.file)) == expected)
    #expect(try bytes(processor, path(video.file), together: 3) == expected)
    let header = try VideoHeader.read(MediaFile(path: path(video.file), noun: "video", takesFolders: true))
    #expect(header.frames == video.frames)
    #expect(abs((header.framesPerSecond ?? 0) - (video.rate ?? 0)) < 1e-9)
  }

  @Test func fixtureIsThere() { #expect(Case.all.count == 17) }

  /// One through a pipe, which is read once.
  @Test func throughAPipe() throws {
    let data = try Data(contentsOf: folder.appendingPathComponent("444.y4m"))
    let pipe = Pipe()
    pipe.fileHandleForWriting.write(data)
    try pipe.fileHandleForWriting.close()
    let video = try #require(Case.all.first { $0.file == "444.y4m" })
    let found = try bytes(
      processor(height: video.height, width: video.width), "/dev/fd/\(pipe.fileHandleForReading.fileDescriptor)")
    #expect(found == Array(Case.pixels[video.offset..<video.offset + video.frames * 7 * 5 * 3]))
  }

  /// An odd last frame stands twice in its unit, as its time does.
  @Test func oddFrames() throws {
    let single = try bytes(processor(height: 23, width: 31), path("frames"))
    let patches = processor(height: 23, width: 31, patch: 2)
    let frame = 23 * 31 * 3
    #expect(try bytes(patches, path("frames")) == single + single.suffix(frame))
    let cost = try patches.cost(of: MediaFile(path: path("frames"), noun: "video", takesFolders: true))
    #expect(cost.layout.runs == [MediaLayout.Run(shape: [2, 23, 31], count: 3, unitBytes: 2 * frame)])
    #expect(cost.timing?.seconds == [[0, 0.5], [1, 1.5], [2, 2]])
    #expect(cost.timing?.duration == 2.5)
    #expect(cost.isStreamed && cost.heldUnitBytes == 0 && cost.streamedUnitBytes == 2 * frame)
    // A single frame is a unit, too.
    let one = try patches.choosing(rate: nil, mostFrames: 1)
    #expect(try bytes(one, path("frames")) == Array(single.prefix(frame) + single.prefix(frame)))
  }

  @Test func whatIsAskedFor() throws {
    let folder = try MediaFile(path: path("frames"), noun: "video", takesFolders: true)
    let all = processor(height: 23, width: 31)
    #expect(
      try all.choosing(rate: 10, mostFrames: nil).cost(of: folder).timing?.seconds.map { $0[0] } == [
        0, 0.1, 0.2, 0.3, 0.4,
      ])
    #expect(try all.choosing(rate: nil, mostFrames: 2).cost(of: folder).timing?.seconds.map { $0[0] } == [0, 1])
    // Of a file with times a rate chooses.
    let clip = try MediaFile(path: path("lossless.webp"), noun: "video", takesFolders: true)
    #expect(try all.choosing(rate: 8, mostFrames: nil).cost(of: clip).timing?.frames == 2)
    for (rate, frames) in [(0.0, nil), (-1, nil), (2000, nil), (nil, 0), (nil, -3)] as [(Double?, Int?)] {
      #expect((try? all.choosing(rate: rate, mostFrames: frames)) == nil)
    }
  }

  // MARK: Rules

  @Test func sampling() throws {
    let rows = try JSONSerialization.jsonObject(with: Data(contentsOf: folder.appendingPathComponent("sampling.json")))
    for row in try #require(rows as? [[Any]]) {
      let rule = try #require((row[0] as? String).flatMap(VideoSampling.Rule.init))
      let sampling = VideoSampling(
        rule: rule, framesPerSecond: row[1] as? Double, frames: row[2] as? Int, least: row[3] as? Int ?? 0,
        most: row[4] as? Int ?? 0, temporalPatch: row[5] as? Int ?? 0)
      let found = sampling.indices(of: row[7] as? Int ?? 0, rate: row[6] as? Double ?? 0)
      #expect(found == row[8] as? [Int], "\(row)")
    }
  }

  /// Whatever is asked for, there is at least one frame, and none twice or behind the end.
  @Test(arguments: VideoSampling.Rule.allCases) func anySampling(_ rule: VideoSampling.Rule) {
    for count in [1, 2, 3, 4, 5, 7, 10, 33, 70] {
      for rate in [0.01, 1, 23.976, 1e6] {
        for wanted in [nil, 0.001, 2, 1000] as [Double?] {
          for patch in [1, 2, 3] {
            for most in [1, 2, 5, 768] {
              let sampling = VideoSampling(
                rule: rule, framesPerSecond: wanted, frames: wanted == nil || rule == .trimmed ? 16 : nil,
                least: min(4, most), most: most, temporalPatch: patch)
              for indices in [sampling.indices(of: count, rate: rate), sampling.all(of: count)] {
                #expect(!indices.isEmpty && indices[0] >= 0 && indices[indices.count - 1] < count)
                #expect(zip(indices, indices.dropFirst()).allSatisfy { $0 < $1 })
                #expect(
                  indices.count <= max(most, 1),
                  "\(rule) \(count) \(rate) \(String(describing: wanted)) \(patch) \(most)")
              }
            }
          }
        }
      }
    }
  }

  @Test func sizes() throws {
    let rows = try JSONSerialization.jsonObject(with: Data(contentsOf: folder.appendingPathComponent("sizes.json")))
    for row in try #require(rows as? [[Any]]) {
      let numbers = row.map { $0 as? Int }
      let sizing = VideoSizing.area(
        factor: numbers[0] ?? 0, least: numbers[1] ?? 0, most: numbers[2] ?? 0, isTotal: row[3] as? Bool ?? false,
        mostRows: row[4] is NSNull ? nil : numbers[4])
      let size = try sizing.size(
        of: ImageProcessor.Size(height: numbers[5] ?? 0, width: numbers[6] ?? 0), frames: numbers[7] ?? 0,
        temporalPatch: 2)
      #expect([size.height, size.width] == row[8] as? [Int], "\(row)")
    }
  }

  // MARK: What is wrong

  private func message(_ path: String) -> String {
    do {
      let all = processor(height: 4, width: 4)
      _ = try all.cost(of: MediaFile(path: path, noun: "video", takesFolders: true))
      _ = try bytes(all, path)
      return ""
    } catch {
      #expect(!error.message.contains("\n"))
      return "\(error.exitCode) \(error.message)"
    }
  }

  @Test func brokenFiles() throws {
    let place = try TemporaryFolder()
    func write(_ name: String, _ data: Data) throws -> String {
      try data.write(to: place.url.appendingPathComponent(name))
      return place.url.appendingPathComponent(name).path
    }
    let y4m = try Data(contentsOf: folder.appendingPathComponent("420.y4m"))
    #expect(message(try write("a", y4m.dropLast())).contains("truncated in frame 3"))
    #expect(message(try write("b", y4m.prefix(60))).contains("65"))
    #expect(message(try write("c", Data("YUV4MPEG2 W4 H4 C420p10\n".utf8))).contains("C420p10"))
    #expect(message(try write("d", Data("YUV4MPEG2 W4 H4\n".utf8))).contains("no frame"))
    #expect(message(try write("e", Data("YUV4MPEG2 W0 H4\nFRAME\n".utf8))).contains("no pixels"))
    #expect(message(try write("f", Data("YUV4MPEG2 W99999 H99999\nFRAME\n".utf8))).contains("more than"))
    #expect(message(try write("g", Data("YUV4MPEG2 W4 H4\nFRAMES\n".utf8))).contains("there is no frame at byte 16"))
    #expect(message(try write("h", Data())).contains("empty"))
    // However an animation is cut off, or a byte of it changed, it is a message or frames.
    for name in ["opaque.gif", "lossless.webp", "lossy.webp", "transparent.gif"] {
      let data = try [UInt8](Data(contentsOf: folder.appendingPathComponent(name)))
      for count in stride(from: 20, to: data.count - 1, by: 61) { _ = message(try write("i", Data(data[..<count]))) }
      for place in stride(from: 12, to: data.count, by: 97) {
        var changed = data
        changed[place] ^= 0xFF
        _ = message(try write("j", Data(changed)))
      }
    }
  }

  @Test func folders() throws {
    let place = try TemporaryFolder()
    let path = place.url.path
    #expect(message(path).hasPrefix("66 "))
    #expect(message(path).contains("there is no image in this folder"))
    try Data("notes".utf8).write(to: place.url.appendingPathComponent("notes.txt"))
    #expect(message(path).hasPrefix("66 "))
    let frames = folder.appendingPathComponent("frames")
    try FileManager.default.copyItem(
      at: frames.appendingPathComponent("frame1.png"), to: place.url.appendingPathComponent("a1.PNG"))
    #expect(message(path) == "")
    try FileManager.default.copyItem(
      at: imagesFolder.deletingLastPathComponent().appendingPathComponent("vision/pictures/tiny.png"),
      to: place.url.appendingPathComponent("a02.png"))
    #expect(message(path).contains("a02.png: this frame has"))
    #expect(message(path).contains("give frames of one size"))
  }
}

/// Changes PATH, which is the whole process's, by putting a folder before it.
@Suite(.serialized) struct FFmpegTests {
  /// A script in the place of ffmpeg; frame n of its video has two pixels of the level n.
  private func install(frames: Int, listed: Int, _ more: String = "") throws -> TemporaryFolder {
    let place = try TemporaryFolder()
    let script = """
      #!/bin/sh
      case "$*" in
        *-version*) exit 0 ;;
        *framecrc*) echo '#tb 0: 1/10'
          n=0; while [ $n -lt \(listed) ]; do echo "0, $n, $n, 1, 100, 0x0"; n=$((n+1)); done; exit 0 ;;
      esac
      \(more)
      n=0; while [ $n -lt \(frames) ]; do
        case "$*" in
          *select=*) case "$*" in *"eq(n,$n)"*) ;; *) n=$((n+1)); continue ;; esac ;;
        esac
        printf 'P6\\n2 1\\n255\\n'
        o=$(printf '\\\\%03o' $n); printf "$o$o$o$o$o$o"
        n=$((n+1))
      done
      """
    let program = place.url.appendingPathComponent("ffmpeg")
    try Data(script.utf8).write(to: program)
    chmod(program.path, 0o755)
    // A file of its own for each: what is known of a file is kept.
    try Data("video \(UUID())".utf8).write(to: place.url.appendingPathComponent("clip.mp4"))
    setenv("PATH", "\(place.url.path):\(String(cString: getenv("PATH")))", 1)
    return place
  }

  private func levels(_ place: TemporaryFolder, most: Int) throws(SquintError) -> [UInt8] {
    let all = try processor(height: 1, width: 2).choosing(rate: nil, mostFrames: most)
    let bytes = try bytes(all, place.url.appendingPathComponent("clip.mp4").path)
    return stride(from: 0, to: bytes.count, by: 6).map { bytes[$0] }
  }

  @Test func chosenFrames() throws {
    let place = try install(frames: 20, listed: 20)
    let header = try VideoHeader.read(
      MediaFile(path: place.url.appendingPathComponent("clip.mp4").path, noun: "video", takesFolders: true))
    #expect((header.frames, header.width, header.height) == (20, 2, 1))
    #expect(header.framesPerSecond == 10)
    #expect(try levels(place, most: 5) == [0, 4, 8, 12, 16])
    #expect(try levels(place, most: 100) == Array(0..<20))
  }

  /// Frames that are listed and never shown: the last stands for them.
  @Test func fewerThanListed() throws {
    let place = try install(frames: 6, listed: 8)
    #expect(try levels(place, most: 8) == [0, 1, 2, 3, 4, 5, 5, 5])
    #expect(try levels(place, most: 4) == [0, 2, 4, 4])
  }

  @Test func failures() throws {
    func message(_ place: TemporaryFolder) -> String {
      do {
        _ = try levels(place, most: 3)
        return ""
      } catch {
        return "\(error.exitCode) \(error.message)"
      }
    }
    let failing = try install(frames: 3, listed: 3, "echo 'something' >&2; echo 'no such codec' >&2; exit 1")
    #expect(message(failing).hasPrefix("65 "))
    #expect(message(failing).contains("ffmpeg does not understand it: no such codec"))
    #expect(message(try install(frames: 3, listed: 3, "echo 'not a picture'; exit 0")).contains("is no picture"))
    #expect(message(try install(frames: 3, listed: 0)).hasPrefix("65 "))
    #expect(
      message(try install(frames: 3, listed: 3, "printf 'P6\\n2 1\\n255\\nabc'; exit 0")).contains("within a frame"))
    // Much to complain of stops nobody.
    let loud = try install(
      frames: 3, listed: 3,
      "i=0; while [ $i -lt 3000 ]; do echo 'a line of some words for stderr' >&2; i=$((i+1)); done")
    #expect(message(loud) == "")
  }

  /// Who does not want to wait ends the program.
  @Test func cancelled() throws {
    let place = try install(frames: 3, listed: 3, "case \"$*\" in *frames:v\\ 1*) ;; *) exec sleep 30 ;; esac")
    let all = processor(height: 1, width: 2)
    let units = try #require(
      try all.units(
        of: MediaFile(path: place.url.appendingPathComponent("clip.mp4").path, noun: "video", takesFolders: true),
        while: { true }))
    let start = ContinuousClock.now
    do {
      let reader = try units.reader()
      var asked = 0
      let isFinished = try reader.next(
        1, of: units.layout.runs[0],
        while: {
          asked += 1
          return asked < 5
        }
      ) { _ in true }
      #expect(!isFinished)
    }
    #expect(ContinuousClock.now - start < .seconds(10))
  }
}

/// A folder that goes with it.
private final class TemporaryFolder {
  let url: URL

  init() throws {
    url = FileManager.default.temporaryDirectory.appendingPathComponent("squint-videos-\(UUID())")
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(at: url) }
}
