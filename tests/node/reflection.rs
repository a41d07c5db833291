//! A client that knows nothing but the address, as `grpcurl` is one: it lists, describes, and calls what it was told of.

use prost::Message as _;
use prost::bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_types::{DescriptorProto, FileDescriptorProto, MethodDescriptorProto};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::harness::{Running, soon};

/// Messages as their bytes.
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(bytes.copy_to_bytes(bytes.remaining()).to_vec()))
    }
}

async fn ask(client: &mut ServerReflectionClient<Channel>, message: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let answers = soon("reflection", client.server_reflection_info(tokio_stream::iter([request]))).await;
    let answer = answers.expect("answers").into_inner().message().await.expect("answers").expect("once");
    answer.message_response.expect("is not empty")
}

/// The text of a message's field.
fn text_of(message: &DescriptorProto, field: &str, mut bytes: &[u8]) -> Option<String> {
    let number = message.field.iter().find(|f| f.name() == field)?.number();
    let mut found = None;
    while bytes.has_remaining() {
        let (tag, wire) = decode_key(&mut bytes).ok()?;
        if i32::try_from(tag) == Ok(number) && wire == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
            found = String::from_utf8(bytes.copy_to_bytes(length).to_vec()).ok();
        } else {
            skip_field(wire, tag, &mut bytes, DecodeContext::default()).ok()?;
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_lists_describes_and_calls() {
    let node = Running::start().await;
    let mut client = ServerReflectionClient::new(node.channel().await);
    // grpcurl list
    let MessageResponse::ListServicesResponse(list) =
        ask(&mut client, MessageRequest::ListServices(String::new())).await
    else {
        panic!("no list")
    };
    let service = list.service.iter().find(|s| s.name.ends_with(".Perception")).expect("is listed").name.clone();
    // grpcurl describe: the file with the service, and all that it imports.
    let MessageResponse::FileDescriptorResponse(found) =
        ask(&mut client, MessageRequest::FileContainingSymbol(service.clone())).await
    else {
        panic!("no file")
    };
    let file = FileDescriptorProto::decode(&found.file_descriptor_proto[0][..]).expect("is a file");
    for import in &file.dependency {
        let answer = ask(&mut client, MessageRequest::FileByFilename(import.clone())).await;
        assert!(matches!(answer, MessageResponse::FileDescriptorResponse(_)), "{import}: {answer:?}");
    }
    let described = file.service.iter().find(|s| service.ends_with(s.name())).expect("is described");
    let streams = |m: &MethodDescriptorProto| (m.name().to_owned(), m.client_streaming(), m.server_streaming());
    let expected = [("Segment", false), ("Perceive", true), ("Describe", false)];
    let expected = expected.map(|(name, streams)| (name.to_owned(), streams, streams));
    assert_eq!(described.method.iter().map(streams).collect::<Vec<_>>(), expected);
    let comments = file.source_code_info.as_ref().is_some_and(|info| !info.location.is_empty());
    assert!(comments, "the contract's comments come along");
    // grpcurl ADDRESS sam4mllm.v1.Perception/Describe
    let method = described.method.iter().find(|m| m.name() == "Describe").expect("is there");
    let path = format!("/{service}/{}", method.name()).parse().expect("a path");
    let mut grpc = tonic::client::Grpc::new(node.channel().await);
    grpc.ready().await.expect("is connected");
    let answer =
        soon("an answer", grpc.unary(Request::new(Vec::new()), path, Raw)).await.expect("answers").into_inner();
    let output = file.message_type.iter().find(|m| method.output_type().ends_with(&format!(".{}", m.name())));
    assert_eq!(text_of(output.expect("is described"), "bundle_name", &answer).as_deref(), Some("colours"));
    let missing = MessageRequest::FileContainingSymbol("no.Such".into());
    let asked = ServerReflectionRequest { host: String::new(), message_request: Some(missing) };
    let refused = soon("reflection", client.server_reflection_info(tokio_stream::iter([asked]))).await;
    let refused = refused.expect("answers").into_inner().message().await.expect_err("there is none");
    assert_eq!(refused.code(), tonic::Code::NotFound, "{refused}");
}
