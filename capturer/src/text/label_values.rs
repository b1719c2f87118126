//! Labels with a closed set of values, as enums: a metric's series are made at zero from all of them.

/// An enum whose values are the closed set of one label.
macro_rules! label_values {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$value_doc])* $value,)* }

        impl $name {
            /// All values of the label.
            pub const ALL: &[$name] = &[$($name::$value),*];

            /// The value as the label has it.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$value => $text,)* }
            }
        }
    };
}
pub(crate) use label_values;
