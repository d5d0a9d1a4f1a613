//! Whole migrations: the chart installed by helm, real applications, and what is there afterwards.

mod there_and_back;
