//! The requests that a front-end may send, by number and name.

use std::fmt;

use super::MessageError;

macro_rules! codes {
    ($($name:ident = $number:literal $text:literal $(needs $feature:literal)?;)*) => {
        /// A request's number (vhost-user: "Front-end message types").
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Code {
            $(#[doc = concat!("`VHOST_USER_", $text, "`")] $name = $number,)*
        }

        impl Code {
            /// Every request, by number.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Its name without the prefix that all have, as in `SET_MEM_TABLE`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The feature that it belongs to, if that is one which is never offered.
            pub(super) fn unoffered_feature(self) -> Option<&'static str> {
                match self {
                    $($(Self::$name => Some($feature),)?)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    GetFeatures = 1 "GET_FEATURES";
    SetFeatures = 2 "SET_FEATURES";
    SetOwner = 3 "SET_OWNER";
    ResetOwner = 4 "RESET_OWNER";
    SetMemTable = 5 "SET_MEM_TABLE";
    SetLogBase = 6 "SET_LOG_BASE" needs "VHOST_F_LOG_ALL";
    SetLogFd = 7 "SET_LOG_FD" needs "VHOST_F_LOG_ALL";
    SetVringNum = 8 "SET_VRING_NUM";
    SetVringAddr = 9 "SET_VRING_ADDR";
    SetVringBase = 10 "SET_VRING_BASE";
    GetVringBase = 11 "GET_VRING_BASE";
    SetVringKick = 12 "SET_VRING_KICK";
    SetVringCall = 13 "SET_VRING_CALL";
    SetVringErr = 14 "SET_VRING_ERR";
    GetProtocolFeatures = 15 "GET_PROTOCOL_FEATURES";
    SetProtocolFeatures = 16 "SET_PROTOCOL_FEATURES";
    GetQueueNum = 17 "GET_QUEUE_NUM";
    SetVringEnable = 18 "SET_VRING_ENABLE";
    SendRarp = 19 "SEND_RARP";
    NetSetMtu = 20 "NET_SET_MTU";
    SetBackendReqFd = 21 "SET_BACKEND_REQ_FD" needs "VHOST_USER_PROTOCOL_F_BACKEND_REQ";
    IotlbMsg = 22 "IOTLB_MSG" needs "VIRTIO_F_ACCESS_PLATFORM";
    SetVringEndian = 23 "SET_VRING_ENDIAN" needs "VHOST_USER_PROTOCOL_F_CROSS_ENDIAN";
    GetConfig = 24 "GET_CONFIG" needs "VHOST_USER_PROTOCOL_F_CONFIG";
    SetConfig = 25 "SET_CONFIG" needs "VHOST_USER_PROTOCOL_F_CONFIG";
    CreateCryptoSession = 26 "CREATE_CRYPTO_SESSION" needs "VHOST_USER_PROTOCOL_F_CRYPTO_SESSION";
    CloseCryptoSession = 27 "CLOSE_CRYPTO_SESSION" needs "VHOST_USER_PROTOCOL_F_CRYPTO_SESSION";
    PostcopyAdvise = 28 "POSTCOPY_ADVISE" needs "VHOST_USER_PROTOCOL_F_PAGEFAULT";
    PostcopyListen = 29 "POSTCOPY_LISTEN" needs "VHOST_USER_PROTOCOL_F_PAGEFAULT";
    PostcopyEnd = 30 "POSTCOPY_END" needs "VHOST_USER_PROTOCOL_F_PAGEFAULT";
    GetInflightFd = 31 "GET_INFLIGHT_FD" needs "VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD";
    SetInflightFd = 32 "SET_INFLIGHT_FD" needs "VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD";
    GpuSetSocket = 33 "GPU_SET_SOCKET" needs "the GPU device";
    ResetDevice = 34 "RESET_DEVICE";
    VringKick = 35 "VRING_KICK" needs "VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS";
    GetMaxMemSlots = 36 "GET_MAX_MEM_SLOTS";
    AddMemReg = 37 "ADD_MEM_REG";
    RemMemReg = 38 "REM_MEM_REG";
    SetStatus = 39 "SET_STATUS";
    GetStatus = 40 "GET_STATUS";
    GetSharedObject = 41 "GET_SHARED_OBJECT" needs "VHOST_USER_PROTOCOL_F_SHARED_OBJECT";
    SetDeviceStateFd = 42 "SET_DEVICE_STATE_FD" needs "VHOST_USER_PROTOCOL_F_DEVICE_STATE";
    CheckDeviceState = 43 "CHECK_DEVICE_STATE" needs "VHOST_USER_PROTOCOL_F_DEVICE_STATE";
}

impl Code {
    /// Whether the request is answered with more than an acknowledgement, so that asking for one
    /// changes nothing (vhost-user: `REPLY_ACK`).
    pub fn has_reply(self) -> bool {
        use Code::*;
        matches!(
            self,
            GetFeatures
                | GetProtocolFeatures
                | GetVringBase
                | GetQueueNum
                | IotlbMsg
                | GetConfig
                | CreateCryptoSession
                | PostcopyAdvise
                | PostcopyEnd
                | GetInflightFd
                | GetMaxMemSlots
                | GetStatus
                | GetSharedObject
                | SetDeviceStateFd
                | CheckDeviceState
        )
    }
}

impl TryFrom<u32> for Code {
    type Error = MessageError;

    fn try_from(number: u32) -> Result<Self, MessageError> {
        // Numbered from 1 without a gap, which a test holds.
        let at = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
        at.and_then(|at| Self::ALL.get(at)).copied().ok_or(MessageError::Unknown(number))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_and_strangers_are_named() {
        for (at, code) in Code::ALL.iter().enumerate() {
            assert_eq!(*code as usize, at + 1, "{code}");
            assert_eq!(Code::try_from(*code as u32), Ok(*code));
        }
        for number in [0, 44, u32::MAX] {
            let error = Code::try_from(number).unwrap_err().to_string();
            assert_eq!(error, format!("request {number} is unknown"));
        }
    }
}
