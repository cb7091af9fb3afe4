import Foundation
import Squint
import Testing

/// Pictures in conversations: what is looked at when, and how prompts with pictures are put together.
@Suite struct PictureSessionTests {
  private let square = VisionFixture.picture("square.png")
  private let wide = VisionFixture.picture("wide.png")

  private func answer(_ session: Session, _ count: Int = 6) throws -> [Int32] {
    var generator = Generator(session, GenerationOptions(maxTokens: count, stopsAtStopTokens: false))
    var tokens: [Int32] = []
    while let token = try generator.next() { tokens += [token.id].compactMap { $0 } }
    return tokens
  }

  /// A second question about a picture does not encode it again, and its answer is that of a session that computes all anew.
  @Test(arguments: ["llava-clip", "smolvlm"]) func aPictureStaysInTheConversation(_ name: String) throws {
    let model = try VisionFixture.named(name).model(.f32)
    let (first, second) = (try model.picture(square), try model.picture(wide))
    let session = try Session(
      model, SessionOptions(context: 256, kvType: .f32, threads: 1, chunk: 5, vision: .always))
    var messages = [try ChatMessage(role: "user", "What is it?", pictures: 1)]
    try session.append(model.prompt(messages, pictures: [first]))
    _ = try answer(session)
    #expect(session.encoded.pictures == 1)

    messages += [ChatMessage(role: "assistant", "A"), try ChatMessage(role: "user", "And?", pictures: 0)]
    try session.replace(with: model.prompt(messages, pictures: [first]))
    #expect(session.cachedCount > first.rows)
    _ = try answer(session)
    #expect(session.encoded.pictures == 1)

    // Another picture behind what the cache holds, which the encoder must leave alone.
    messages += [ChatMessage(role: "assistant", "B"), try ChatMessage(role: "user", "Now <image>?", pictures: 1)]
    let prompt = try model.prompt(messages, pictures: [first, second])
    try session.replace(with: prompt)
    let continued = try answer(session)
    #expect(session.encoded.pictures == 2)

    let fresh = try Session(
      model,
      SessionOptions(context: 256, kvType: .f32, threads: 1, vision: .once([first.size, second.size])))
    try fresh.append(prompt)
    #expect(try answer(fresh) == continued)
  }

  /// A picture that is another one, though the tokens are the same, is looked at.
  @Test func anotherPictureIsAnother() throws {
    let model = try VisionFixture.named("llava-clip").model(.f32)
    let session = try Session(model, SessionOptions(context: 128, threads: 1, vision: .always))
    let pictures = [try model.picture(square), try model.picture(wide)]
    for picture in pictures {
      try session.replace(with: model.prompt(text: "The <image> is", pictures: [picture]))
      _ = try answer(session, 1)
    }
    #expect(session.encoded.pictures == 2)
    // Cut in the middle of the picture, what remains of it is computed again.
    let prompt = try model.prompt(text: "The <image> is", pictures: [pictures[1]])
    session.truncate(to: prompt.count - 6)
    try session.replace(with: prompt)
    #expect(session.cachedCount == prompt.count - 6)
    _ = try answer(session, 1)
    #expect(session.encoded.pictures == 3)
  }

  /// Where a prompt has more pictures than the session's buffer holds, they are looked at one after the other.
  @Test func manyPicturesInOnePrompt() throws {
    let model = try VisionFixture.named("llava-clip").model(.f32)
    let pictures = try [square, wide, square, VisionFixture.picture("tall.png")].map { try model.picture($0) }
    let prompt = try model.prompt(text: "a <image> b <image><image> c <image> d", pictures: pictures)
    let one = try logits(model, prompt, SessionOptions(kvType: .f32, threads: 1, vision: .always))
    let all = try logits(
      model, prompt, SessionOptions(kvType: .f32, threads: 1, vision: .once(pictures.map(\.size))))
    // Chunks end elsewhere, so that sums are in another order.
    #expect(largestDifference(one.flatMap { $0 }, all.flatMap { $0 }) < 1e-4)
    #expect(
      caught { _ = try logits(model, prompt, SessionOptions(threads: 1, vision: .once([pictures[0].size]))) }?.kind
        == .usage)
    #expect(caught { _ = try logits(model, prompt, SessionOptions(threads: 1)) }?.kind == .usage)
  }

  /// Cancelled while it looks, a session has seen nothing, and looks again.
  @Test func cancelledWhileItLooks() throws {
    let model = try VisionFixture.named("smolvlm").model(.f32)
    let picture = try model.picture(wide)
    let prompt = try model.prompt(text: "What?", pictures: [picture])
    let options = SessionOptions(kvType: .f32, threads: 1, vision: .once([picture.size]))
    let session = try Session(model, options)
    try session.append(prompt)
    session.onProgress = { [cancellation = session.cancellation] progress in
      if case .encode(let tile, _) = progress, tile == 1 { cancellation.cancel() }
    }
    #expect(try answer(session).isEmpty && session.encoded.pictures == 0)
    session.onProgress = nil
    session.cancellation.reset()
    let again = try answer(session)
    let fresh = try Session(model, options)
    try fresh.append(prompt)
    #expect(try answer(fresh) == again)
    #expect(session.encoded.pictures == 1)
  }

  /// The same picture object twice, side by side.
  /// The pixels are in the plan of looking alone: whatever becomes of that, they do not stay.
  @Test func pixelsDoNotStay() throws {
    let model = try VisionFixture.named("smolvlm").model(.f32)
    let folder = try TemporaryFolder()
    let broken = folder.path + "/broken.png"
    let bytes = try Data(contentsOf: URL(fileURLWithPath: wide))
    try bytes.prefix(bytes.count / 2).write(to: URL(fileURLWithPath: broken))

    let cancellation = Cancellation()
    var pictures = [try model.picture(square), try model.picture(wide)]
    var session = try Session(
      model, SessionOptions(context: 256, threads: 1, vision: .once(pictures.map(\.size))), cancellation: cancellation)
    session.onProgress = { _ in cancellation.cancel() }
    try session.append(model.prompt(text: "<image> <image>", pictures: pictures))
    #expect(try session.forEachLogits { _, _ in } == false)
    #expect(pictures.allSatisfy { !$0.isDecoded })

    pictures = [try model.picture(square), try model.picture(broken)]
    session = try Session(model, SessionOptions(context: 256, threads: 1, vision: .once(pictures.map(\.size))))
    try session.append(model.prompt(text: "<image> <image>", pictures: pictures))
    #expect(caught { try session.forEachLogits { _, _ in } }?.kind == .badData)
    #expect(pictures.allSatisfy { !$0.isDecoded })
  }

  @Test func thePictureTwice() throws {
    let model = try VisionFixture.named("original-linear").model(.f32)
    let (a, b) = (try model.picture(square), try model.picture(square))
    let same = try model.prompt(text: "<image><image> same?", pictures: [a, a])
    let two = try model.prompt(text: "<image><image> same?", pictures: [a, b])
    let options = SessionOptions(kvType: .f32, threads: 1, vision: .once([a.size, a.size]))
    let areEqual = try logits(model, same, options) == logits(model, two, options)
    #expect(areEqual)
  }

  /// Markers and pictures must be as many.
  @Test func markersAndPicturesMatch() throws {
    let model = try VisionFixture.named("llava-clip").model(.int8)
    let picture = try model.picture(square)
    for (text, count) in [("<image>", 0), ("a <image> b", 2), ("<image><image>", 1)] {
      let pictures = [Picture](repeating: picture, count: count)
      #expect(caught { _ = try model.prompt(text: text, pictures: pictures) }?.kind == .usage)
      #expect(
        caught {
          _ = try model.prompt([ChatMessage(role: "user", text, pictures: count)], pictures: pictures)
        }?.kind == .usage)
    }
    // Without markers, pictures come first.
    let first = try model.prompt(text: "What?", pictures: [picture, picture])
    #expect(first.tokens == (try model.prompt(text: "<image><image>What?", pictures: [picture, picture]).tokens))
  }

  /// The template puts the picture where the message has it; one that knows no pictures gets the marker in the text.
  @Test(arguments: VisionFixture.all) func conversationsHavePlacesForPictures(_ fixture: VisionFixture) throws {
    let model = try fixture.model(.int8)
    let picture = try model.picture(square)
    let prompt = try model.prompt(
      [ChatMessage(role: "user", "What is <image>?", pictures: 1)], pictures: [picture])
    #expect(prompt.tokens.filter { $0 == Prompt.featureToken }.count == picture.rows)
    #expect(prompt.count > picture.rows + 3)
  }

  /// A question without a picture never touches the pages of the encoder.
  @Test func textNeverTouchesTheEncoder() throws {
    let model = try VisionFixture.named("llava-clip").model(.int8)
    let session = try Session(model, SessionOptions(context: 64, threads: 1))
    try session.append("What is the capital of France?")
    _ = try answer(session)
    #expect(try residentPages(of: "decoder", in: model.file) > 0)
    #expect(try residentPages(of: "encoder.image", in: model.file) == 0)
    #expect(try residentPages(of: "projector.image", in: model.file) == 0)

    let picture = try model.picture(square)
    let looking = try Session(model, SessionOptions(context: 64, threads: 1, vision: .once([picture.size])))
    try looking.append(model.prompt(text: "What?", pictures: [picture]))
    let pages = Pages()
    looking.onProgress = { [file = model.file] progress in
      // The encoder has worked when the decoder begins, and its pages are gone.
      if case .prefill = progress { pages.encoderAfter = try? residentPages(of: "encoder.image", in: file) }
    }
    _ = try answer(looking)
    #expect(pages.encoderAfter == 0)
  }

  private final class Pages {
    var encoderAfter: Int?
  }

  /// Memory is planned: pictures, the encoder and its buffers; and what does not fit is refused before anything is read.
  @Test func picturesAreInThePlan() throws {
    let model = try VisionFixture.named("idefics3").model(.int8)
    let picture = try model.picture(wide)
    let text = try SessionPlan(model, SessionOptions(context: 64))
    let seeing = try SessionPlan(model, SessionOptions(context: 64, vision: .once([picture.size])))
    #expect(!text.phases.contains { $0.name == "encode" })
    let encode = try #require(seeing.phases.first { $0.name == "encode" })
    #expect(encode.items.contains { $0.name == "encoder.image" } && !encode.items.contains { $0.name == "decoder" })
    #expect(encode.items.first { $0.name == "pictures" }!.byteCount >= picture.size.pixelBytes)
    #expect(
      caught {
        _ = try SessionPlan(
          model, SessionOptions(context: 64, memory: encode.byteCount - 1, vision: .once([picture.size])))
      }?.kind == .doesNotFit)
  }
}

/// The pages of module `name` that this process has mapped.
private func residentPages(of name: String, in file: ModelFile) throws -> Int {
  let index = try #require(file.modules.firstIndex { $0.name == name })
  let tensors = file.tensors.filter { $0.module == index }
  let first = UInt(bitPattern: file.bytes(of: tensors.first!).baseAddress!)
  let last = UInt(bitPattern: file.bytes(of: tensors.last!).baseAddress!) + UInt(tensors.last!.range.count) - 1
  let page = UInt(sysconf(Int32(_SC_PAGESIZE)))
  let map = try #require(FileHandle(forReadingAtPath: "/proc/self/pagemap"))
  var count = 0
  for number in first / page...last / page {
    try map.seek(toOffset: UInt64(number) * 8)
    let entry = try #require(try map.read(upToCount: 8)).withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) }
    if entry >> 63 == 1 { count += 1 }
  }
  return count
}
