//! A name server of one's own on loopback, over UDP.

use std::net::{SocketAddr, UdpSocket};

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

/// What a name server says to a question.
pub enum Says {
    /// Addresses and SRV targets that have the type of the question; the others are left out. They may not be kept.
    Have(Vec<RData>),
    /// There is no such name.
    NoSuchName,
    /// The server does not answer such questions.
    Refused,
    /// Nothing at all.
    Silence,
}

/// An address, to be had.
pub fn at(address: &str) -> RData {
    RData::from(address.parse::<std::net::IpAddr>().unwrap())
}

/// The host of a service.
pub fn service(target: &str) -> RData {
    RData::SRV(SRV::new(10, 10, 5060, Name::from_ascii(target).unwrap()))
}

/// Starts a server that answers as `says` does for a name (lower case, without the final dot) and a type. It ends
/// with the test.
pub fn name_server(mut says: impl FnMut(&str, RecordType) -> Says + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let question = Message::from_vec(&buffer[..length]).unwrap();
            let query = question.queries[0].clone();
            let name = query.name().to_ascii().to_lowercase();
            let mut answer = Message::response(question.metadata.id, OpCode::Query);
            answer.metadata.recursion_available = true;
            match says(name.trim_end_matches('.'), query.query_type()) {
                Says::Have(all) => {
                    let fitting = all.into_iter().filter(|data| data.record_type() == query.query_type());
                    answer.add_answers(fitting.map(|data| Record::from_rdata(query.name().clone(), 0, data)));
                }
                Says::NoSuchName => answer.metadata.response_code = ResponseCode::NXDomain,
                Says::Refused => answer.metadata.response_code = ResponseCode::Refused,
                Says::Silence => continue,
            }
            answer.add_query(query);
            socket.send_to(&answer.to_vec().unwrap(), client).unwrap();
        }
    });
    address
}
