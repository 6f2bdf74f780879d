//! What comes before every request and every response. The four bytes of a frame's length are not part of it.

use crate::api::ApiKey;
use crate::messages::{RequestHeader, ResponseHeader};
use crate::reader::{Malformed, Reader};
use crate::value::{Message, Unwritable, Version};

const PLAIN: Version = Version {
    number: 1,
    flexible: false,
};

/// The header of a request that can be served, but perhaps not at this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// What is asked for.
    pub key: ApiKey,
    /// At which version; [`ApiKey::serves`] says whether that is known. Only of `ApiVersions` it may not be.
    pub version: i16,
    /// To be said in the response.
    pub correlation_id: i32,
    /// Who asks, in its own words.
    pub client_id: Option<&'a str>,
}

/// Why there is no answer to a request: Kafka closes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Nobody knows what is asked for.
    #[error("no request has the number {number} here (version {version})")]
    Unknown {
        /// The number.
        number: i16,
        /// The version.
        version: i16,
    },
    /// It is asked for at a version that is not served, and the client was told so by `ApiVersions`.
    #[error("version {version} of {name}; {min} to {max} are served", name = key.api().name, min = key.api().version_min, max = key.api().version_max)]
    Version {
        /// What is asked for.
        key: ApiKey,
        /// The version.
        version: i16,
    },
    /// The header is no header.
    #[error("the header of a request: {0}")]
    Malformed(#[from] Malformed),
}

/// Reads the header of a request; the request itself is next.
pub fn read_request<'a>(reader: &mut Reader<'a>) -> Result<Request<'a>, HeaderError> {
    let number = i16::from_be_bytes(reader.array()?);
    let version = i16::from_be_bytes(reader.array()?);
    let key = ApiKey::from_i16(number).ok_or(HeaderError::Unknown { number, version })?;
    // A client of the future asks for ApiVersions at a version of its own, and is answered at version 0.
    if !key.serves(version) && key != ApiKey::ApiVersions {
        return Err(HeaderError::Version { key, version });
    }
    let correlation_id = i32::from_be_bytes(reader.array()?);
    // Plain at every version, so that a broker can read it that does not know the version.
    let client_id = reader.string(PLAIN)?;
    if key.request_header_version(version) >= 2 {
        reader.tags(|_, _| Ok(false))?;
    }
    Ok(Request {
        key,
        version,
        correlation_id,
        client_id,
    })
}

/// Appends the header of a request, as a client does.
pub fn write_request(out: &mut Vec<u8>, request: &Request<'_>) -> Result<(), Unwritable> {
    let header = RequestHeader {
        request_api_key: request.key.number(),
        request_api_version: request.version,
        correlation_id: request.correlation_id,
        client_id: request.client_id.map(Into::into),
    };
    header.write(out, request.key.request_header_version(request.version))
}

/// Reads the header of the response to a request, as a client does; says to which request it belongs.
pub fn read_response(reader: &mut Reader<'_>, key: ApiKey, version: i16) -> Result<i32, Malformed> {
    let header = ResponseHeader::read(reader, key.response_header_version(version))?;
    Ok(header.correlation_id)
}

/// Appends the header of the response to a request.
pub fn write_response(out: &mut Vec<u8>, key: ApiKey, version: i16, correlation_id: i32) {
    out.extend_from_slice(&correlation_id.to_be_bytes());
    if key.response_header_version(version) > 0 {
        out.push(0);
    }
}
